// Gets /N for each N, on one connection, and checks each body: node_client.js HOST PORT N…
'use strict';
const fs = require('fs');
const https = require('https');

const [host, port, ...lengths] = process.argv.slice(2);
const agent = new https.Agent({
  keepAlive: true, maxSockets: 1, ca: fs.readFileSync(process.env.LAB_CERT),
});

function get(length) {
  return new Promise((resolve, reject) => {
    https.get({ host, port, path: `/${length}`, agent }, (response) => {
      let text = '';
      response.on('data', (piece) => { text += piece; });
      response.on('end', () => {
        if (text.length !== length) reject(new Error(`${text.length} bytes, not ${length}`));
        resolve();
      });
    }).on('error', reject);
  });
}

async function run() {
  for (const length of lengths) await get(Number(length));
  agent.destroy();
}

if (process.env.ODD_GATE) {
  console.log('ready');
  process.stdin.once('data', () => { process.stdin.destroy(); run(); });
} else {
  run();
}
