// An issuer of tokens for tests: a key pair, a file with the public half, and signatures.
import { generateKeyPairSync, sign } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

const issuer = "https://id.example.org";
const audience = "shop";
const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

/** Returns what a server needs to trust the issuer, and a function that makes tokens: of whom, with which other claims. */
export async function newIssuer() {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const folder = await mkdtemp(join(tmpdir(), "issuer-"));
  const file = join(folder, "jwks.json");
  await writeFile(file, JSON.stringify({ keys: [{ ...publicKey.export({ format: "jwk" }), kid: "1", alg: "ES256", use: "sig" }] }));
  return {
    env: { AUTH: "jwt", JWKS_FILE: file, JWT_ISSUER: issuer, JWT_AUDIENCE: audience, JWT_LEEWAY: "1ms" },
    token(sub, claims = {}) {
      const now = Math.floor(Date.now() / 1000);
      const text = `${encode({ alg: "ES256", kid: "1", typ: "JWT" })}.${encode({ iss: issuer, aud: audience, sub, iat: now, exp: now + 600, ...claims })}`;
      return `${text}.${sign("sha256", text, { key: privateKey, dsaEncoding: "ieee-p1363" }).toString("base64url")}`;
    },
    close: () => rm(folder, { recursive: true, force: true }),
  };
}
