// Gets URLs one after the other over one connection.
using System;
using System.Net.Http;
using System.Net.Security;

class Client
{
    static void Main(string[] urls)
    {
        var handler = new HttpClientHandler { ServerCertificateCustomValidationCallback = (a, b, c, d) => true };
        var client = new HttpClient(handler);
        foreach (var url in urls)
            Console.WriteLine(client.GetStringAsync(url).Result.Length);
    }
}
