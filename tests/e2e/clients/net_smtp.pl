# Perl's Net::SMTP, with IO::Socket::SSL for TLS and Authen::SASL for AUTH.
use strict;
use warnings;
use JSON::PP;
use Net::SMTP;

sub slurp {
    open my $file, '<:raw', shift or die $!;
    local $/;
    return scalar <$file>;
}

sub connected {
    my ($target) = @_;
    my @trust = (SSL_ca_file => $target->{ca_file});
    my $smtp = Net::SMTP->new(
        Host => $target->{host}, Port => $target->{port}, Hello => 'perl.test', Timeout => 20,
        SSL  => $target->{tls} eq 'implicit', @trust
    ) or die "cannot connect: $@";
    if ($target->{tls} eq 'starttls') {
        $smtp->starttls(@trust) or die "STARTTLS: $@";
    }
    if (defined $target->{login}) {
        $smtp->auth($target->{login}, $target->{password}) or die 'AUTH: ' . $smtp->message;
    }
    return $smtp;
}

$| = 1;
my $job = decode_json(slurp($ARGV[0]));
for my $target (@{ $job->{targets} }) {
    my $smtp = connected($target);
    for my $message (@{ $job->{messages} }) {
        my $ok = $smtp->mail("$message->{name}.$target->{name}\@example.com",
                             $message->{announced} ? (Bits => 8) : ())
              && $smtp->recipient(@{ $message->{recipients} })
              && $smtp->data(slurp($message->{raw}));
        print join("\t", $target->{name}, $message->{name}, $ok ? 'ok' : $smtp->message =~ s/\s+/ /gr), "\n";
    }
    $smtp->quit;
}
