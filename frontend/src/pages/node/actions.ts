import type { AllowedAction, Node } from "../../api/types";
import type { Verb } from "./verbs";

/** What the server says about a verb; the console never guesses. */
export function actionOf(node: Node, verb: Verb): AllowedAction | undefined {
  return node.allowed_actions.find((entry) => entry.action === verb);
}
