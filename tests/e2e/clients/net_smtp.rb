# Ruby's net-smtp.
require "json"
require "net/smtp"

def connection(target)
  trust = OpenSSL::SSL::SSLContext.new
  trust.set_params(ca_file: target["ca_file"])
  smtp = Net::SMTP.new(target["host"], target["port"])
  case target["tls"]
  when "plain" then smtp.disable_starttls
  when "starttls" then smtp.enable_starttls(trust)
  when "implicit" then smtp.enable_tls(trust)
  end
  smtp
end

job = JSON.parse(File.read(ARGV[0]))
job["targets"].each do |target|
  login = target["login"] ? [target["login"], target["password"], :plain] : []
  connection(target).start("ruby.test", *login) do |smtp|
    job["messages"].each do |message|
      sender = "#{message["name"]}.#{target["name"]}@example.com"
      sender = Net::SMTP::Address.new(sender, "BODY=8BITMIME") if message["announced"]
      outcome = begin
        smtp.send_message(File.binread(message["raw"]), sender, message["recipients"])
        "ok"
      rescue Net::ProtocolError => error
        error.message.tr("\t\r\n", " ")
      end
      puts [target["name"], message["name"], outcome].join("\t")
    end
  end
end
