import { Button, PasswordInput, TextInput } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { OctagonAlert } from "lucide-react";
import { type FormEvent, useState } from "react";
import { api, bodyOf } from "../../api/client";
import { ApiProblem } from "../../api/problem";
import { keys } from "../../api/keys";
import { Logo } from "../../app/Logo";
import s from "./SignIn.module.css";

/** Shown at any address until somebody is signed in; the address stays, so a deep link survives. */
export function SignIn() {
  const client = useQueryClient();
  const [username, setUsername] = useState("");
  const [password, setPassword] = useState("");
  const signIn = useMutation({
    mutationFn: () => bodyOf(api.POST("/api/v1/session/", { body: { username, password } })),
    onSuccess: async () => {
      client.removeQueries({ predicate: (query) => query.queryKey[0] !== keys.me[0] });
      await client.refetchQueries({ queryKey: keys.me });
    },
    onError: () => setPassword(""),
  });

  function submit(event: FormEvent): void {
    event.preventDefault();
    signIn.mutate();
  }

  const failure = signIn.error instanceof ApiProblem ? signIn.error.sentence : "The control plane cannot be reached. Try again in a moment.";
  return (
    <main className={s.page}>
      <div className={s.card}>
        <div className={s.brand}>
          <Logo size={32} /> HELM
        </div>
        <form className={s.form} onSubmit={submit} aria-labelledby="sign-in">
          <h1 id="sign-in">Sign in</h1>
          <TextInput
            label="User name"
            name="username"
            autoComplete="username"
            autoFocus
            required
            withAsterisk={false}
            value={username}
            onChange={(event) => setUsername(event.currentTarget.value)}
          />
          <PasswordInput
            label="Password"
            name="password"
            autoComplete="current-password"
            required
            withAsterisk={false}
            value={password}
            onChange={(event) => setPassword(event.currentTarget.value)}
          />
          <div className={s.error} role="alert">
            {signIn.isError && (
              <>
                <OctagonAlert size={14} aria-hidden style={{ flex: "none", marginTop: 1 }} />
                {failure}
              </>
            )}
          </div>
          <Button type="submit" variant="filled" loading={signIn.isPending} disabled={!username || !password}>
            Sign in
          </Button>
        </form>
        <p className="tiny dim">
          The first user and password were printed where the control plane was started with <code>make up</code>.
        </p>
      </div>
    </main>
  );
}
