// Calls of the public APIs, as any client makes them. What goes wrong is a Problem with the platform's stable `code`.
import platform from "/web/platform.js";

const onPort = (port) => `${location.protocol}//${location.hostname}:${port}`;

export const ORIGINS = {
  serving: location.origin,
  ingest: onPort(platform.ingest_port),
  operator: onPort(platform.operator_port),
};

const PATIENCE_MS = 10_000;

export class Problem extends Error {
  constructor(status, document, retryAfter = null) {
    super(document.detail ?? `HTTP ${status}`);
    this.status = status; // 0: nobody answered
    this.code = document.code ?? "request_failed";
    this.document = document;
    this.retryAfter = retryAfter; // seconds
  }

  get outage() {
    return this.status === 0 || this.status >= 500;
  }
}

/**
 * One call; resolves to the answer's JSON (null where there is no body).
 * @param {"serving"|"ingest"|"operator"} edge which API
 * @param {string} path from /v1 on, with its ids encoded
 * @param {{method?: string, body?: unknown, credential?: string, keepalive?: boolean, patience?: number}} options
 *   credential: a key or a person's token; keepalive: sent even while the page is left; patience: milliseconds
 * @throws {Problem}
 */
export async function call(edge, path, options = {}) {
  const answer = await send(edge, path, options);
  const text = await answer.text();
  return text ? JSON.parse(text) : null;
}

/** The same, for an answer that is no JSON: resolves to the Response. */
export async function send(edge, path, { method = "GET", body, credential, keepalive, patience = PATIENCE_MS } = {}) {
  const headers = {};
  if (credential) headers.Authorization = `Bearer ${credential}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const request = { method, headers, keepalive, cache: "no-store", credentials: "omit" };
  if (body !== undefined) request.body = JSON.stringify(body);
  const answer = await fetch(ORIGINS[edge] + path, { ...request, signal: AbortSignal.timeout(patience) }).catch(() => {
    throw new Problem(0, { code: "unreachable", detail: `Nobody answers at ${ORIGINS[edge]}.` });
  });
  if (answer.ok) return answer;
  const document = await answer.json().catch(() => ({}));
  throw new Problem(answer.status, document, Number(answer.headers.get("Retry-After")) || null);
}
