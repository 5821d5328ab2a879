-- Two requests over one connection.
local socket, ssl = require "socket", require "ssl"
local conn = socket.tcp()
conn:connect(arg[1], tonumber(arg[2]))
conn = ssl.wrap(conn, { mode = "client", protocol = "any", verify = "none" })
conn:dohandshake()
for _, path in ipairs { "/one", "/two" } do
  conn:send("GET " .. path .. " HTTP/1.1\r\nHost: a\r\n\r\n")
  local size = 0
  while true do
    local line = conn:receive("*l")
    if not line or line == "" then break end
    size = tonumber(line:lower():match("content%-length: *(%d+)")) or size
  end
  conn:receive(size)
end
conn:close()
