// Answers HTTP requests over TLS: Server HOST PORT DIR, with DIR/both.p12.
using System;
using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using System.Threading;

class Server
{
    static void Main(string[] args)
    {
        var certificate = new X509Certificate2(args[2] + "/both.p12", "x");
        var listener = new TcpListener(IPAddress.Parse(args[0]), int.Parse(args[1]));
        listener.Start();
        while (true)
        {
            var socket = listener.AcceptTcpClient();
            new Thread(() =>
            {
                try
                {
                    var stream = new SslStream(socket.GetStream());
                    stream.AuthenticateAsServer(certificate);
                    var buffer = new byte[65536];
                    while (stream.Read(buffer, 0, buffer.Length) > 0)
                        stream.Write(Encoding.ASCII.GetBytes("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"));
                }
                catch (Exception error) { Console.WriteLine(error); }
                socket.Close();
            }).Start();
        }
    }
}
