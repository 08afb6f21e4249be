import { Button, CopyButton, Modal, Select, TextInput } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { Check, KeyRound, Power } from "lucide-react";
import { type FormEvent, useState } from "react";
import { api, bodyOf } from "../../api/client";
import { keys } from "../../api/keys";
import { ApiProblem } from "../../api/problem";
import { useTokens } from "../../api/queries";
import type { NewToken, Token } from "../../api/types";
import { useTitle } from "../../app/useTitle";
import { Chip } from "../../components/Chip";
import { Empty, Failure, Loaded, Panel } from "../../components/Panel";
import { logTime } from "../../format/time";

const HEIGHT = 320;

const LIFETIMES = [
  { value: "86400", label: "1 day" },
  { value: "2592000", label: "30 days" },
  { value: "7776000", label: "90 days" },
  { value: "31536000", label: "1 year" },
];

/** Ways in for scripts; each acts as its owner. */
export default function TokensPage() {
  useTitle("API tokens");
  const query = useTokens();
  const [creating, setCreating] = useState(false);
  return (
    <>
      <div className="row" style={{ minHeight: 28 }}>
        <h1>API tokens</h1>
        <span className="small quiet">a token acts with its owner's role</span>
        <Button className="end" variant="filled" leftSection={<KeyRound size={14} />} onClick={() => setCreating(true)}>
          New token
        </Button>
      </div>
      <Panel title="Tokens" note={query.data ? String(query.data.length) : undefined} flush>
        <Loaded
          query={query}
          height={HEIGHT}
          isEmpty={(tokens) => tokens.length === 0}
          empty={
            <Empty>
              <p>No token yet. helmctl and scripts need one; the console does not.</p>
            </Empty>
          }
        >
          {(tokens) => <TokenTable tokens={tokens} />}
        </Loaded>
      </Panel>
      {creating && <CreateDialog onClose={() => setCreating(false)} />}
    </>
  );
}

function stateOf(token: Token): "active" | "revoked" | "expired" {
  if (token.revoked_at) return "revoked";
  return token.expires_at && Date.parse(token.expires_at) <= Date.now() ? "expired" : "active";
}

function when(at: string | null, never: string): string {
  return at === null ? never : logTime(new Date(at), new Date());
}

function TokenTable({ tokens }: { tokens: Token[] }) {
  return (
    <div className="scroll-x">
      <table className="data-table">
        <thead>
          <tr>
            <th>Name</th>
            <th>State</th>
            <th>Owner</th>
            <th>Created</th>
            <th>Last used</th>
            <th>Expires</th>
            <th />
          </tr>
        </thead>
        <tbody>
          {tokens.map((token) => (
            <Row key={token.id} token={token} />
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Row({ token }: { token: Token }) {
  const client = useQueryClient();
  const [asking, setAsking] = useState(false);
  const state = stateOf(token);
  const revoke = useMutation({
    mutationFn: () => api.DELETE("/api/v1/tokens/{id}/", { params: { path: { id: token.id } } }),
    onSettled: () => client.invalidateQueries({ queryKey: keys.tokens }),
  });
  return (
    <tr>
      <td className="mono">{token.name}</td>
      <td>
        <Chip tone={state === "active" ? "ok" : "neutral"} icon={state === "active" ? Check : Power}>
          {state}
        </Chip>
      </td>
      <td>{token.owner}</td>
      <td>{when(token.created_at, "")}</td>
      <td>{when(token.last_used_at, "never")}</td>
      <td>{when(token.expires_at, "never")}</td>
      <td className="num">
        {state === "active" && !asking && <Button onClick={() => setAsking(true)}>Revoke</Button>}
        {asking && state === "active" && (
          <span className="row" style={{ justifyContent: "flex-end" }}>
            <span className="small quiet">{token.last_used_at ? `Last used ${when(token.last_used_at, "")}.` : "Never used."}</span>
            <Button onClick={() => setAsking(false)}>Keep</Button>
            <Button variant="filled" color="red" loading={revoke.isPending} onClick={() => revoke.mutate()}>
              Revoke
            </Button>
          </span>
        )}
        {revoke.isError && <Failure error={revoke.error} />}
      </td>
    </tr>
  );
}

function CreateDialog({ onClose }: { onClose: () => void }) {
  const client = useQueryClient();
  const [name, setName] = useState("");
  const [lifetime, setLifetime] = useState("2592000");
  const create = useMutation({
    mutationFn: () => bodyOf(api.POST("/api/v1/tokens/", { body: { name: name.trim(), ttl_seconds: Number(lifetime) } })),
    onSuccess: () => client.invalidateQueries({ queryKey: keys.tokens }),
  });
  const problem = create.error instanceof ApiProblem ? create.error : null;
  function submit(event: FormEvent): void {
    event.preventDefault();
    create.mutate();
  }
  return (
    <Modal opened onClose={onClose} title={create.data ? "Copy the token now" : "New API token"} size={480}>
      {create.data ? (
        <Shown token={create.data} onClose={onClose} />
      ) : (
        <form onSubmit={submit} style={{ display: "grid", gap: 12 }}>
          <TextInput data-autofocus label="Name" placeholder="What uses it" value={name} maxLength={64} onChange={(event) => setName(event.currentTarget.value)} error={problem?.about("name")} />
          <Select label="Expires after" data={LIFETIMES} value={lifetime} onChange={(value) => setLifetime(value ?? lifetime)} error={problem?.about("ttl_seconds")} />
          {problem && problem.errors.length === 0 && <p style={{ color: "var(--crit)" }}>{problem.sentence}</p>}
          <div className="row" style={{ justifyContent: "flex-end" }}>
            <Button onClick={onClose}>Cancel</Button>
            <Button type="submit" variant="filled" disabled={name.trim() === ""} loading={create.isPending}>
              Create
            </Button>
          </div>
        </form>
      )}
    </Modal>
  );
}

function Shown({ token, onClose }: { token: NewToken; onClose: () => void }) {
  return (
    <div style={{ display: "grid", gap: 12 }}>
      <p className="quiet">It will not be shown again.</p>
      <TextInput readOnly value={token.token} aria-label="Token" styles={{ input: { fontFamily: "var(--mono)" } }} onFocus={(event) => event.currentTarget.select()} />
      <div className="row" style={{ justifyContent: "flex-end" }}>
        <CopyButton value={token.token}>{({ copied, copy }) => <Button onClick={copy}>{copied ? "Copied" : "Copy"}</Button>}</CopyButton>
        <Button variant="filled" onClick={onClose}>
          Done
        </Button>
      </div>
    </div>
  );
}
