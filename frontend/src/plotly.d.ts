/** The bundle ships no types of its own; these are the two calls that are made. */
declare module "plotly.js-cartesian-dist-min" {
  type Part = Record<string, unknown>;
  const Plotly: {
    react(root: HTMLElement, data: Part[], layout: Part, config: Part): Promise<HTMLElement>;
    purge(root: HTMLElement): void;
  };
  export default Plotly;
}
