<?php
// PHPMailer: each message is composed once (preSend) and sent to every target over a connection that is kept.

require getenv("PHPMAILER") . "/autoload.php";

use PHPMailer\PHPMailer\PHPMailer;

$job = json_decode(file_get_contents($argv[1]), true);
$mails = [];
foreach ($job["messages"] as $message) {
    $mail = new PHPMailer(true);
    $mail->isSMTP();
    $mail->Hostname = "php.test";
    $mail->CharSet = PHPMailer::CHARSET_UTF8;
    $mail->setFrom($message["from"], "App", false);
    foreach ($message["to"] as $address) {
        $mail->addAddress($address);
    }
    foreach ($message["bcc"] as $address) {
        $mail->addBCC($address);
    }
    $mail->Subject = $message["subject"];
    $mail->MessageDate = $message["date"];
    $mail->MessageID = $message["message_id"];
    $mail->Body = $message["html"] ?? $message["text"];
    if ($message["html"] !== null) {
        $mail->isHTML();
        $mail->AltBody = $message["text"];
    }
    if ($message["file"] !== null) {
        $mail->addAttachment($message["file"]);
    }
    $mail->Encoding = $message["eight_bit"] ? PHPMailer::ENCODING_8BIT : PHPMailer::ENCODING_QUOTED_PRINTABLE;
    $mail->preSend();
    $mails[$message["name"]] = $mail;
}

foreach ($job["targets"] as $target) {
    $connection = null;
    foreach ($mails as $name => $mail) {
        $mail->Host = $target["host"];
        $mail->Port = $target["port"];
        $mail->SMTPAutoTLS = false;
        $mail->SMTPSecure = ["plain" => "", "starttls" => PHPMailer::ENCRYPTION_STARTTLS,
            "implicit" => PHPMailer::ENCRYPTION_SMTPS][$target["tls"]];
        $mail->SMTPOptions = ["ssl" => ["cafile" => $target["ca_file"]]];
        $mail->SMTPAuth = $target["login"] !== null;
        $mail->Username = $target["login"] ?? "";
        $mail->Password = $target["password"];
        $mail->SMTPKeepAlive = true;
        $mail->Sender = "$name.{$target['name']}@example.com";
        if ($connection !== null) {
            $mail->setSMTPInstance($connection);
        }
        $outcome = "ok";
        try {
            $mail->postSend();
        } catch (Exception $error) {
            $outcome = strtr($error->getMessage(), "\t\r\n", "   ");
        }
        $connection = $mail->getSMTPInstance();
        echo "{$target['name']}\t$name\t$outcome\n";
    }
    $connection->quit();
    $connection->close();
}
