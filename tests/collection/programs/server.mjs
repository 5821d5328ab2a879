// Answers HTTP requests over TLS, by the API named first: server.mjs HOW HOST PORT DIR.
const [how, host, port, dir] = (globalThis.Deno ? Deno.args : process.argv.slice(2));
const { readFileSync } = await import("node:fs");
const cert = readFileSync(dir + "/cert.pem", "utf8"), key = readFileSync(dir + "/key.pem", "utf8");
const hello = (request, answer) => answer.end("hello");

if (how === "https") {
  (await import("node:https")).createServer({ cert, key }, hello).listen(Number(port), host);
} else if (how === "http2") {
  (await import("node:http2")).createSecureServer({ cert, key, allowHTTP1: true }, hello).listen(Number(port), host);
} else if (how === "grpc") {
  // Packages are found by NODE_PATH, which only require() looks at.
  const grpc = (await import("node:module")).createRequire(import.meta.url)("@grpc/grpc-js");
  const pair = [{ private_key: Buffer.from(key), cert_chain: Buffer.from(cert) }];
  new grpc.Server().bindAsync(`${host}:${port}`, grpc.ServerCredentials.createSsl(null, pair), () => {});
} else if (how === "bun") {
  Bun.serve({ hostname: host, port: Number(port), tls: { cert, key }, fetch: () => new Response("hello") });
} else {
  Deno.serve({ hostname: host, port: Number(port), cert, key }, () => new Response("hello"));
}
