import { Navigate, useLocation } from "react-router";
import { useNodes } from "../../api/queries";
import { Loaded } from "../../components/Panel";
import { sorted } from "../fleet/nodeFilter";

/** `/nodes` leads to a node: the first by name. Without any, to the fleet page, which says what to do. */
export default function FirstNode() {
  const nodes = useNodes();
  const { search } = useLocation();
  return (
    <Loaded query={nodes} height={720}>
      {(rows) => {
        const first = sorted(rows, "name")[0];
        return <Navigate to={first ? { pathname: `/nodes/${encodeURIComponent(first.metadata.name)}`, search } : "/"} replace />;
      }}
    </Loaded>
  );
}
