<?php
// PHP's mail(): what it hands to sendmail_path, which is msmtp, with an account for each target, or relay-sendmail, which
// the environment tells where the relay is. Both have `-f` for the reverse-path.

$job = json_decode(file_get_contents($argv[1]), true);

foreach ($job["targets"] as $target) {
    $account = str_contains(ini_get("sendmail_path"), "msmtp") ? "-a {$target['name']} " : "";
    putenv("RELAY_SENDMAIL={$target['host']}:{$target['port']}");
    foreach ($job["messages"] as $message) {
        [$head, $body] = explode("\r\n\r\n", file_get_contents($message["raw"]), 2);
        $headers = [];
        foreach (explode("\r\n", preg_replace("/\r\n[ \t]+/", " ", $head)) as $line) {
            [$field, $value] = explode(": ", $line, 2);
            $headers[$field] = $value;
        }
        unset($headers["To"], $headers["Subject"]);
        $sent = mail(
            implode(", ", $message["to"]),
            $message["subject"],
            $body,
            $headers,
            "{$account}-f {$message['name']}.{$target['name']}@example.com"
        );
        echo "{$target['name']}\t{$message['name']}\t", $sent ? "ok" : "mail() returned false", "\n";
    }
}
