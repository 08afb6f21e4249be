import { lazy } from "react";
import { Navigate, Route, Routes } from "react-router";
import { useMe } from "../api/queries";
import { ApiProblem } from "../api/problem";
import { Failure } from "../components/Panel";
import { LiveProvider } from "../live/LiveProvider";
import { FleetPage } from "../pages/fleet/FleetPage";
import { SignIn } from "../pages/signin/SignIn";
import { NotFound } from "./NotFound";
import { Shell } from "./Shell";

const NodePage = lazy(() => import("../pages/node/NodePage"));
const FirstNode = lazy(() => import("../pages/node/FirstNode"));
const WhatIfPage = lazy(() => import("../pages/whatif/WhatIfPage"));
const PoliciesPage = lazy(() => import("../pages/policies/PoliciesPage"));
const RoutingPage = lazy(() => import("../pages/routing/RoutingPage"));
const AuditPage = lazy(() => import("../pages/audit/AuditPage"));
const TokensPage = lazy(() => import("../pages/tokens/TokensPage"));

/** Who is asking decides what there is: the sign-in form, or the console. */
export function App() {
  const me = useMe();
  if (me.isPending) return null;
  const refused = me.error instanceof ApiProblem && [401, 403].includes(me.error.status);
  if (refused) return <SignIn />;
  if (!me.data) {
    return (
      <main style={{ height: "100vh" }}>
        <Failure error={me.error} onRetry={() => void me.refetch()} />
      </main>
    );
  }
  return (
    <LiveProvider>
      <Routes>
        <Route element={<Shell />}>
          <Route index element={<FleetPage />} />
          <Route path="nodes" element={<FirstNode />} />
          <Route path="nodes/:name" element={<NodePage />} />
          <Route path="whatifs" element={<WhatIfPage />} />
          <Route path="whatifs/:id" element={<WhatIfPage />} />
          <Route path="policies" element={<PoliciesPage />} />
          <Route path="policies/:digest" element={<PoliciesPage />} />
          <Route path="routing" element={<RoutingPage />} />
          <Route path="audit" element={<AuditPage />} />
          <Route path="tokens" element={<TokensPage />} />
          <Route path="fleet" element={<Navigate to="/" replace />} />
          <Route path="*" element={<NotFound />} />
        </Route>
      </Routes>
    </LiveProvider>
  );
}
