import { ApiProblem } from "../../api/problem";
import type { AllowedAction, Node } from "../../api/types";

/** What the server says about a verb; the console never guesses. */
export function actionOf(node: Node, verb: AllowedAction["action"]): AllowedAction | undefined {
  return node.allowed_actions.find((entry) => entry.action === verb);
}

/** Why a write to a node failed, for whoever sent it. */
export function refusalText(error: unknown, name: string): string {
  if (!(error instanceof ApiProblem)) return "The control plane cannot be reached. Nothing is known to have changed.";
  if (error.status === 412) return `Somebody changed ${name} meanwhile: the form now shows the newest state. Look at it, then send again.`;
  return error.sentence;
}
