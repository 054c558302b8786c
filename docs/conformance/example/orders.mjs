// A service in Node.js, without packages, that accepts tokens of Keycloak from one caller.
// ISSUER=https://sso.example.com/realms/corp PORT=8000 node orders.mjs
import { createPublicKey, verify } from "node:crypto";
import { createServer } from "node:http";

const ISSUER = process.env.ISSUER;
const AUDIENCE = "orders-api";
const CALLERS = new Set(["shop"]);
const LEEWAY = 30; // seconds

class Refused extends Error {
  constructor(status, error = "") {
    super(error);
    this.status = status;
    this.error = error;
  }
}

const refuseUnless = (holds, status = 401, error = "invalid_token") => {
  if (!holds) throw new Refused(status, error);
};

let keys = new Map();
let asked = -Infinity;

async function keyOf(kid) {
  if (!keys.has(kid) && performance.now() - asked > 5000) {
    asked = performance.now();
    try {
      const answer = await fetch(`${ISSUER}/protocol/openid-connect/certs`, { redirect: "error", signal: AbortSignal.timeout(5000) });
      const published = (await answer.json()).keys.filter((jwk) => jwk.kty === "RSA" && jwk.use === "sig" && jwk.alg === "RS256");
      keys = new Map(published.map((jwk) => [jwk.kid, createPublicKey({ key: jwk, format: "jwk" })]));
    } catch {
      // The keys that are there stay in use.
    }
  }
  refuseUnless(keys.size > 0, 503, "");
  refuseUnless(keys.has(kid));
  return keys.get(kid);
}

function decoded(part) {
  const bytes = Buffer.from(part, "base64url");
  refuseUnless(bytes.toString("base64url") === part); // one spelling only
  return bytes;
}

function objectOf(part) {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(decoded(part));
    const value = JSON.parse(text);
    refuseUnless(value !== null && typeof value === "object" && !Array.isArray(value));
    return value;
  } catch {
    throw new Refused(401, "invalid_token");
  }
}

const isText = (value) => typeof value === "string" && value !== "";

function tokenOf(request) {
  const values = request.headersDistinct.authorization ?? [];
  if (new URL(request.url, "http://x").searchParams.has("access_token")) {
    refuseUnless(values.length === 0, 400, "invalid_request");
  }
  refuseUnless(values.length <= 1, 400, "invalid_request");
  const found = /^bearer +(.*)$/is.exec(values[0] ?? "") ?? (/^bearer$/i.test(values[0] ?? "") ? ["", ""] : null);
  refuseUnless(found, 401, "");
  refuseUnless(/^[\w.~+/-]+=*$/.test(found[1]) && found[1].length <= 16384, 400, "invalid_request");
  return found[1];
}

async function callerOf(request) {
  const token = tokenOf(request);
  const parts = token.split(".");
  refuseUnless(parts.length === 3);
  const header = objectOf(parts[0]);
  refuseUnless(header.alg === "RS256" && isText(header.kid));
  refuseUnless(["jwt", "at+jwt"].includes(isText(header.typ) ? header.typ.toLowerCase() : ""));
  refuseUnless(!["crit", "b64", "zip", "enc", "cty", "jwk", "jku", "x5c", "x5u", "x5t", "x5t#S256"].some((name) => name in header));
  const signature = decoded(parts[2]);
  refuseUnless(verify("sha256", Buffer.from(`${parts[0]}.${parts[1]}`), await keyOf(header.kid), signature));

  const claims = objectOf(parts[1]);
  const now = Date.now() / 1000;
  refuseUnless(claims.iss === ISSUER);
  refuseUnless([claims.aud].flat().includes(AUDIENCE) && [claims.aud].flat().every(isText));
  refuseUnless(isText(claims.typ) && claims.typ.toLowerCase() === "bearer");
  refuseUnless(Number.isSafeInteger(claims.exp) && claims.exp > now - LEEWAY);
  refuseUnless(Number.isSafeInteger(claims.iat) && claims.iat < now + LEEWAY && claims.iat < claims.exp);
  refuseUnless(claims.nbf === undefined || (Number.isSafeInteger(claims.nbf) && claims.nbf < now + LEEWAY));
  refuseUnless(!("cnf" in claims)); // bound to a key: this service asks for no proof
  refuseUnless(isText(claims.azp));
  // Only the tokens of a service account have client_id, and only those of a user have a session.
  refuseUnless(claims.client_id === claims.azp && !("sid" in claims) && CALLERS.has(claims.azp), 403, "insufficient_scope");
  return claims.azp;
}

const server = createServer(async (request, response) => {
  const { pathname } = new URL(request.url, "http://x");
  const answer = (status, body, headers = {}) => response.writeHead(status, headers).end(body);
  try {
    if (request.method === "GET" && pathname === "/health") return answer(200, "ok");
    const caller = await callerOf(request); // every other path needs a token, whether it exists or not
    if (request.method === "GET" && /^\/orders\/[^/]+$/.test(pathname)) return answer(200, `for ${caller}`);
    return answer(404, "");
  } catch (error) {
    if (!(error instanceof Refused)) return answer(500, "");
    const challenge = error.error ? `Bearer error="${error.error}"` : "Bearer";
    return answer(error.status, "", error.status === 503 ? { "retry-after": "5" } : { "www-authenticate": challenge });
  }
});
server.listen(Number(process.env.PORT ?? 8000), "127.0.0.1");
