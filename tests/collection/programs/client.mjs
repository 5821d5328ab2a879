// Gets URLs one after the other over one connection, by the API named first.
const [how, ...urls] = (globalThis.Deno ? Deno.args : process.argv.slice(2));

async function viaFetch() {
  for (const url of urls) await (await fetch(url, { tls: { rejectUnauthorized: false } })).text();
}

async function viaHttps() {
  const https = await import("node:https");
  const agent = new https.Agent({ keepAlive: true, maxSockets: 1, rejectUnauthorized: false });
  for (const url of urls) {
    await new Promise((done, failed) => https.get(url, { agent }, (answer) => {
      answer.resume();
      answer.on("end", done);
    }).on("error", failed));
  }
  agent.destroy();
}

async function viaTls() {
  const tls = await import("node:tls");
  const { hostname, port } = new URL(urls[0]);
  const socket = tls.connect({ host: hostname, port, rejectUnauthorized: false });
  for (const url of urls) {
    socket.write(`GET ${new URL(url).pathname} HTTP/1.1\r\nHost: a\r\n\r\n`);
    let text = "";
    while (true) {
      const part = await new Promise((done) => socket.once("data", done));
      text += part.toString("latin1");
      const at = text.indexOf("\r\n\r\n");
      const size = /content-length: *(\d+)/i.exec(text);
      if (at >= 0 && size && text.length >= at + 4 + Number(size[1])) break;
    }
  }
  socket.end();
}

// Packages are found by NODE_PATH, which only require() looks at.
async function load(name) {
  return (await import("node:module")).createRequire(import.meta.url)(name);
}

async function viaUndici() {
  const { Agent, request } = await load("undici");
  const dispatcher = new Agent({ connections: 1, connect: { rejectUnauthorized: false } });
  for (const url of urls) await (await request(url, { dispatcher })).body.text();
  await dispatcher.close();
}

async function viaImpit() {
  const { Impit } = await load("impit");
  const client = new Impit({ ignoreTlsErrors: true });
  for (const url of urls) await (await client.fetch(url)).text();
  process.exit();
}

await { fetch: viaFetch, https: viaHttps, tls: viaTls, undici: viaUndici, impit: viaImpit }[how]();
