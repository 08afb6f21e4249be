import { Link } from "react-router";

export function NotFound() {
  return (
    <section>
      <h1>Nothing lives at this address</h1>
      <p className="quiet">
        <Link to="/">Go to the fleet</Link>
      </p>
    </section>
  );
}
