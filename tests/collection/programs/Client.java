/** Gets URLs one after the other. */
public class Client {
    public static void main(String[] urls) throws Exception {
        var all = new javax.net.ssl.TrustManager[] { new javax.net.ssl.X509ExtendedTrustManager() {
            public void checkClientTrusted(java.security.cert.X509Certificate[] c, String a) { }
            public void checkServerTrusted(java.security.cert.X509Certificate[] c, String a) { }
            public void checkClientTrusted(java.security.cert.X509Certificate[] c, String a, java.net.Socket s) { }
            public void checkServerTrusted(java.security.cert.X509Certificate[] c, String a, java.net.Socket s) { }
            public void checkClientTrusted(java.security.cert.X509Certificate[] c, String a, javax.net.ssl.SSLEngine e) { }
            public void checkServerTrusted(java.security.cert.X509Certificate[] c, String a, javax.net.ssl.SSLEngine e) { }
            public java.security.cert.X509Certificate[] getAcceptedIssuers() { return null; }
        } };
        var context = javax.net.ssl.SSLContext.getInstance("TLS");
        context.init(null, all, null);
        javax.net.ssl.HttpsURLConnection.setDefaultSSLSocketFactory(context.getSocketFactory());
        for (var url : urls) {
            try (var in = java.net.URI.create(url).toURL().openStream()) { in.readAllBytes(); }
        }
    }
}
