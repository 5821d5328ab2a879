// An HTTPS server: GET /N answers N bytes, POST answers what was posted.
'use strict';
const fs = require('fs');
const https = require('https');

function body(length) {
  const lines = [];
  for (let at = 0; at < length + 16; at += 16) lines.push(at.toString(16).padStart(15, '0') + '\n');
  return lines.join('').slice(0, length);
}

const server = https.createServer(
  { cert: fs.readFileSync(process.env.LAB_CERT), key: fs.readFileSync(process.env.LAB_KEY) },
  (request, response) => {
    if (request.method === 'POST') {
      request.pipe(response);
      return;
    }
    const answer = body(Number(request.url.slice(1)) || 5);
    response.setHeader('Content-Length', answer.length);
    response.end(answer);
  });
server.listen(0, process.argv[2], () => console.log(`port ${server.address().port}`));
