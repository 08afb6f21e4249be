/// <reference types="vitest/config" />
import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// In development the console is served by Vite and everything else by a running control plane.
const CONTROL_PLANE = process.env.HELM_WEB_URL ?? "http://127.0.0.1:8700";

export default defineConfig({
  plugins: [react()],
  build: { outDir: "dist", emptyOutDir: true, target: "es2022", chunkSizeWarningLimit: 1700 },
  server: { proxy: { "/api": { target: CONTROL_PLANE, ws: true, changeOrigin: true } } },
  test: { environment: "happy-dom", include: ["tests/**/*.test.{ts,tsx}"] },
});
