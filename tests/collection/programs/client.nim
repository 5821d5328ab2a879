# Gets URLs one after the other over one connection.
import httpclient, net, os
let client = newHttpClient(sslContext = newContext(verifyMode = CVerifyNone))
for url in commandLineParams():
  discard client.getContent(url)
