// Java mail (javax.mail; Angus Mail has the same properties): one session for each target, one transport for all mail.

import java.io.FileInputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import javax.mail.Message;
import javax.mail.MessagingException;
import javax.mail.Session;
import javax.mail.Transport;
import javax.mail.internet.InternetAddress;
import javax.mail.internet.MimeBodyPart;
import javax.mail.internet.MimeMessage;
import javax.mail.internet.MimeMultipart;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLSocketFactory;
import javax.net.ssl.TrustManagerFactory;

public class JavaMail {

    // The job as lines of fields with tabs between: Java reads no JSON by itself.
    record Target(String name, String host, String port, String tls, String login, String password, String caFile) {}

    record Mail(String name, String to, String bcc, String from, String subject, String date, String id, String text,
                String html, String file, boolean eightBit, boolean announced) {}

    static class Fixed extends MimeMessage {
        private final String id;

        Fixed(Session session, String id) {
            super(session);
            this.id = id;
        }

        @Override
        protected void updateMessageID() throws MessagingException {
            setHeader("Message-ID", id);
        }
    }

    public static void main(String[] arguments) throws Exception {
        List<Target> targets = new ArrayList<>();
        List<Mail> mails = new ArrayList<>();
        for (String line : Files.readAllLines(Path.of(arguments[0]))) {
            String[] f = line.split("\t", -1);
            if (f[0].equals("target")) {
                targets.add(new Target(f[1], f[2], f[3], f[4], f[5], f[6], f[7]));
            } else {
                String text = f[8].replace("\\n", "\n");
                String html = f[9].replace("\\n", "\n");
                mails.add(new Mail(f[1], f[2], f[3], f[4], f[5], f[6], f[7], text, html, f[10], f[11].equals("true"),
                                   f[12].equals("true")));
            }
        }
        List<MimeMessage> composed = new ArrayList<>();
        for (Mail mail : mails) {
            composed.add(compose(mail));
        }
        for (Target target : targets) {
            for (boolean announced : new boolean[] {false, true}) {
                send(target, mails, composed, announced);
            }
        }
    }

    static void send(Target target, List<Mail> mails, List<MimeMessage> composed, boolean announced) throws Exception {
        Session session = Session.getInstance(settings(target, announced));
        try (Transport transport = session.getTransport()) {
            if (target.login.isEmpty()) {
                transport.connect();
            } else {
                transport.connect(target.login, target.password);
            }
            for (int i = 0; i < mails.size(); i++) {
                Mail mail = mails.get(i);
                if (mail.announced != announced) {
                    continue;
                }
                session.getProperties().put("mail.smtp.from", mail.name + "." + target.name + "@example.com");
                String all = mail.bcc.isEmpty() ? mail.to : mail.to + "," + mail.bcc;
                String outcome = "ok";
                try {
                    transport.sendMessage(composed.get(i), InternetAddress.parse(all));
                } catch (MessagingException error) {
                    outcome = error.toString().replaceAll("\\s+", " ");
                }
                System.out.println(target.name + "\t" + mail.name + "\t" + outcome);
            }
        }
    }

    static Properties settings(Target target, boolean announced) throws Exception {
        Properties properties = new Properties();
        properties.put("mail.transport.protocol", "smtp");
        properties.put("mail.smtp.host", target.host);
        properties.put("mail.smtp.port", target.port);
        properties.put("mail.smtp.localhost", "java.test");
        if (announced) {
            properties.put("mail.smtp.mailextension", "BODY=8BITMIME");
        }
        properties.put("mail.smtp.auth", String.valueOf(!target.login.isEmpty()));
        if (!target.tls.equals("plain")) {
            properties.put("mail.smtp.ssl.socketFactory", trusting(target.caFile));
            properties.put("mail.smtp.ssl.checkserveridentity", "true");
        }
        if (target.tls.equals("starttls")) {
            properties.put("mail.smtp.starttls.enable", "true");
            properties.put("mail.smtp.starttls.required", "true");
        } else if (target.tls.equals("implicit")) {
            properties.put("mail.smtp.ssl.enable", "true");
        }
        return properties;
    }

    static SSLSocketFactory trusting(String caFile) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (FileInputStream pem = new FileInputStream(caFile)) {
            store.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(pem));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        return context.getSocketFactory();
    }

    static MimeMessage compose(Mail mail) throws Exception {
        MimeMessage message = new Fixed(Session.getInstance(new Properties()), mail.id);
        message.setFrom(new InternetAddress(mail.from, "App"));
        message.setRecipients(Message.RecipientType.TO, mail.to);
        if (!mail.bcc.isEmpty()) {
            message.setRecipients(Message.RecipientType.BCC, mail.bcc);
        }
        message.setSubject(mail.subject);
        message.setHeader("Date", mail.date);
        if (mail.html.isEmpty() && mail.file.isEmpty()) {
            message.setText(mail.text, "utf-8");
        } else {
            MimeMultipart parts = new MimeMultipart(mail.file.isEmpty() ? "alternative" : "mixed");
            MimeBodyPart text = new MimeBodyPart();
            text.setText(mail.text, "utf-8");
            parts.addBodyPart(text);
            MimeBodyPart other = new MimeBodyPart();
            if (mail.file.isEmpty()) {
                other.setText(mail.html, "utf-8", "html");
            } else {
                other.attachFile(mail.file);
            }
            parts.addBodyPart(other);
            message.setContent(parts);
        }
        if (mail.eightBit) {
            message.setHeader("Content-Transfer-Encoding", "8bit");
        }
        message.saveChanges();
        return message;
    }
}
