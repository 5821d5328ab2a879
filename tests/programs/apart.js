// TLS whose records node itself takes to the sockets: apart.js COUNT ROUNDS [VERSION]
//
// COUNT clients each go to a server, to the same server past a relay that does not look into the
// records, and to it through a proxy that ends TLS and begins it anew; all in this process. Each end
// of each TLS connection says which ports it has: `client LOCAL REMOTE K` and `server LOCAL REMOTE K`.
'use strict';
const fs = require('fs');
const net = require('net');
const tls = require('tls');

const [count, rounds] = process.argv.slice(2, 4).map(Number);
const version = process.argv[4];
const cert = fs.readFileSync(process.env.LAB_CERT);
const key = fs.readFileSync(process.env.LAB_KEY);
const host = '127.0.0.1';

function eachLine(socket, then) {
  let text = '';
  let number = 0;
  socket.on('error', () => {});
  socket.on('data', (piece) => {
    text += piece;
    for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
      text = text.slice(end + 1);
      then(number);
      number += 1;
    }
  });
}

function say(role, socket, number) {
  socket.write(`${role} ${socket.localPort} ${socket.remotePort} ${number}\n`);
}

function connect(port, then) {
  const options = { host, port, ca: cert, servername: 'lab.test', maxVersion: version };
  const socket = tls.connect(options, () => then(socket));
  return socket;
}

function listen(server) {
  return new Promise((resolve) => {
    server.listen(0, host, () => resolve(server.address().port));
  });
}

function answers(socket) {
  eachLine(socket, (number) => say('server', socket, number));
}

function proxies(port) {
  return (socket) => {
    const onward = connect(port, () => {
      eachLine(socket, (number) => say('client', onward, number));
      eachLine(onward, (number) => say('server', socket, number));
    });
    socket.on('close', () => onward.end());
  };
}

function relays(port) {
  return (socket) => {
    const onward = net.connect(port, host);
    socket.on('error', () => {});
    onward.on('error', () => {});
    socket.pipe(onward).pipe(socket);
  };
}

async function main() {
  const behind = await listen(tls.createServer({ cert, key }, answers));
  const proxy = await listen(tls.createServer({ cert, key }, proxies(behind)));
  const relay = await listen(net.createServer(relays(behind)));
  const clients = [];
  for (let n = 0; n < count; n += 1) {
    for (const port of [behind, relay, proxy]) {
      clients.push(new Promise((resolve) => { connect(port, resolve); }));
    }
  }
  const sockets = await Promise.all(clients);
  if (process.env.ODD_GATE) {
    console.log('ready');
    await new Promise((resolve) => { process.stdin.once('data', resolve); });
    process.stdin.destroy();
  }
  await Promise.all(sockets.map((socket) => new Promise((resolve) => {
    eachLine(socket, (number) => {
      if (number + 1 < rounds) say('client', socket, number + 1);
      else resolve();
    });
    say('client', socket, 0);
  })));
  process.exit(0);
}

main();
