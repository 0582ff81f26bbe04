import java.io.File;
import java.io.FileOutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.kerby.kerberos.kerb.client.KrbClient;
import org.apache.kerby.kerberos.kerb.server.KdcConfigKey;
import org.apache.kerby.kerberos.kerb.server.SimpleKdcServer;

/**
 * A Kerberos realm in memory: the server that issues tickets, and a keytab for each of its principals.
 *
 * <pre>Kdc DIRECTORY PORT NAME=PRINCIPAL[,PRINCIPAL…]…</pre>
 *
 * Writes into the directory krb5.conf, NAME.keytab with the keys of these principals, and NAME.cache with a ticket of the first,
 * for what takes no keytab. Tickets are as short as they are asked for. Says "ready" and serves until it is killed.
 */
public class Kdc {
    static final String REALM = "MILL.TEST";

    public static void main(String[] args) throws Exception {
        File directory = new File(args[0]);
        int port = Integer.parseInt(args[1]);
        SimpleKdcServer server = new SimpleKdcServer();
        server.setWorkDir(directory);
        server.setKdcHost("127.0.0.1");
        server.setKdcRealm(REALM);
        server.setAllowUdp(false);
        server.setAllowTcp(true);
        server.setKdcTcpPort(port);
        server.getKdcConfig().setLong(KdcConfigKey.MINIMUM_TICKET_LIFETIME, 1L);
        server.init();
        server.start();
        // names as they are given: nothing here may ask a name server
        String conf = "[libdefaults]\n default_realm = " + REALM + "\n dns_lookup_kdc = false\n dns_lookup_realm = false\n"
            + " dns_canonicalize_hostname = false\n rdns = false\n udp_preference_limit = 1\n"
            + "[realms]\n " + REALM + " = {\n  kdc = 127.0.0.1:" + port + "\n }\n"
            + "[domain_realm]\n localhost = " + REALM + "\n";
        Files.write(Path.of(args[0], "krb5.conf"), conf.getBytes(StandardCharsets.UTF_8));
        for (int at = 2; at < args.length; at++) {
            String[] named = args[at].split("=");
            String[] principals = named[1].split(",");
            File keytab = new File(directory, named[0] + ".keytab");
            for (String principal : principals) {
                server.createPrincipal(principal + "@" + REALM);
                server.exportPrincipal(principal + "@" + REALM, keytab);
            }
            KrbClient client = server.getKrbClient();
            client.storeTicket(client.requestTgt(principals[0] + "@" + REALM, keytab), new File(directory, named[0] + ".cache"));
        }
        System.out.println("ready");
        Thread.currentThread().join();
    }
}
