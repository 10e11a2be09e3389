// Nodemailer: composes from fields, with date, id and boundaries given; what has 8 bits it takes as `raw`.
"use strict";

const fs = require("fs");
const nodemailer = require("nodemailer");

const job = JSON.parse(fs.readFileSync(process.argv[2], "utf-8"));

function transport(target) {
  return nodemailer.createTransport({
    pool: true,
    maxConnections: 1,
    host: target.host,
    port: target.port,
    secure: target.tls === "implicit",
    ignoreTLS: target.tls === "plain",
    requireTLS: target.tls === "starttls",
    tls: { ca: fs.readFileSync(target.ca_file) },
    auth: target.login === null ? undefined : { user: target.login, pass: target.password },
  });
}

function mail(message, target) {
  const envelope = {
    from: `${message.name}.${target.name}@example.com`,
    to: message.recipients,
    use8BitMime: message.announced === true,
  };
  if (message.eight_bit) {
    return { envelope, raw: fs.readFileSync(message.raw) };
  }
  return {
    envelope,
    from: `App <${message.from}>`,
    to: message.to,
    bcc: message.bcc,
    subject: message.subject,
    date: message.date,
    messageId: message.message_id,
    baseBoundary: "boundary",
    text: message.text,
    html: message.html || undefined,
    attachments: message.file ? [{ path: message.file }] : [],
  };
}

async function main() {
  for (const target of job.targets) {
    const transporter = transport(target);
    for (const message of job.messages) {
      const outcome = await transporter.sendMail(mail(message, target)).then(() => "ok", (error) => error.message);
      console.log([target.name, message.name, outcome].join("\t"));
    }
    transporter.close();
  }
}

main();
