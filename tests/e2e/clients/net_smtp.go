// Go's net/smtp: a Client that is kept for all messages of a target.
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/smtp"
	"os"
	"strings"
)

type target struct {
	Name, Host, Tls, Login, Password string
	Port                             int
	CaFile                           string `json:"ca_file"`
}

type message struct {
	Name, Raw  string
	Recipients []string
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func connected(to target) *smtp.Client {
	pem, err := os.ReadFile(to.CaFile)
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	trust := &tls.Config{ServerName: to.Host, RootCAs: roots}
	address := fmt.Sprintf("%s:%d", to.Host, to.Port)
	var client *smtp.Client
	if to.Tls == "implicit" {
		connection, err := tls.Dial("tcp", address, trust)
		check(err)
		client, err = smtp.NewClient(connection, to.Host)
		check(err)
	} else {
		client, err = smtp.Dial(address)
		check(err)
	}
	check(client.Hello("go.test"))
	if to.Tls == "starttls" {
		check(client.StartTLS(trust))
	}
	if to.Login != "" {
		check(client.Auth(smtp.PlainAuth("", to.Login, to.Password, to.Host)))
	}
	return client
}

func send(client *smtp.Client, from string, one message) error {
	content, err := os.ReadFile(one.Raw)
	check(err)
	if err := client.Mail(from); err != nil {
		return err
	}
	for _, recipient := range one.Recipients {
		if err := client.Rcpt(recipient); err != nil {
			return err
		}
	}
	data, err := client.Data()
	if err != nil {
		return err
	}
	if _, err := bytes.NewReader(content).WriteTo(data); err != nil {
		return err
	}
	return data.Close()
}

func main() {
	octets, err := os.ReadFile(os.Args[1])
	check(err)
	var job struct {
		Targets  []target
		Messages []message
	}
	check(json.Unmarshal(octets, &job))
	for _, to := range job.Targets {
		client := connected(to)
		for _, one := range job.Messages {
			outcome := "ok"
			if err := send(client, one.Name+"."+to.Name+"@example.com", one); err != nil {
				outcome = strings.Join(strings.Fields(err.Error()), " ")
			}
			fmt.Printf("%s\t%s\t%s\n", to.Name, one.Name, outcome)
		}
		check(client.Quit())
	}
}
