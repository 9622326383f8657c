package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"regexp"
	"strings"

	"github.com/headrace/headrace/internal/outbox"
)

// Names of brokers.
const (
	brokerLocal = "local"
	brokerNATS  = "nats"
	brokerKafka = "kafka"
)

// Brokers says what carries the log and the messages between processes, and how it is reached.
type Brokers struct {
	Broker          string   `name:"broker" env:"BROKER" default:"local" help:"What carries the log and the messages: local (each process follows the log by itself), nats or kafka."`
	PublicTopic     string   `name:"public-topic" env:"PUBLIC_TOPIC" placeholder:"TOPIC" help:"Publish the public events on this topic, for other programs. Needs nats or kafka. Unset: none are published."`
	PublicSource    string   `name:"public-source" env:"PUBLIC_SOURCE" placeholder:"URI" help:"What the public events name as their source, such as https://shop.example.org. Never change it."`
	NATSURL         string   `name:"nats-url" env:"NATS_URL" placeholder:"URL" help:"Servers of NATS with JetStream, comma-separated: nats://host:port, or tls://host:port. Default nats://127.0.0.1:4222."`
	NATSCredentials string   `name:"nats-credentials" env:"NATS_CREDENTIALS" placeholder:"FILE" help:"Credentials file for NATS."`
	NATSReplicas    int      `name:"nats-replicas" env:"NATS_REPLICAS" placeholder:"N" help:"Copies of each stream in a cluster of NATS, 1 to 5. Unset: 1 when the stream is made, and then what an operator sets."`
	KafkaBrokers    []string `name:"kafka-brokers" env:"KAFKA_BROKERS" placeholder:"HOST:PORT" help:"Brokers of Kafka to ask for the others. Comma-separated."`
	KafkaTLS        bool     `name:"kafka-tls" env:"KAFKA_TLS" help:"Encrypt the connection to Kafka."`
	KafkaCA         string   `name:"kafka-ca" env:"KAFKA_CA" placeholder:"FILE" help:"Certificates to trust for Kafka, in place of the system's."`
	KafkaUser       string   `name:"kafka-user" env:"KAFKA_USER" help:"User for Kafka, by SASL/PLAIN."`
	KafkaPassword   string   `name:"kafka-password" env:"KAFKA_PASSWORD" help:"Password for Kafka. Better given by the variable than on a command line."`
}

// shared tells whether processes have one broker among them.
func (b *Brokers) shared() bool { return b.Broker == brokerNATS || b.Broker == brokerKafka }

// Validate is called by kong when all flags and variables are read. Addresses are not printed: they may hold a password.
func (b *Brokers) Validate() error {
	switch b.Broker {
	case "", brokerLocal:
		if b.PublicTopic != "" {
			return errors.New("PUBLIC_TOPIC (--public-topic) is set, and no other program can read from BROKER=local: give BROKER=nats or kafka")
		}
		return nil
	case brokerNATS:
		return errors.Join(b.validateNATS(), b.validatePublic())
	case brokerKafka:
		return errors.Join(b.validateKafka(), b.validatePublic())
	default:
		return fmt.Errorf("BROKER (--broker) is %q: give local, nats or kafka", b.Broker)
	}
}

// topicName fits both a subject of NATS without wildcards and a topic of Kafka.
var topicName = regexp.MustCompile(`^[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*$`)

func (b *Brokers) validatePublic() error {
	if b.PublicTopic == "" {
		return nil
	}
	if !topicName.MatchString(b.PublicTopic) || len(b.PublicTopic) > 200 || b.PublicTopic == outbox.LogTopic {
		return fmt.Errorf("PUBLIC_TOPIC (--public-topic) is %q: give letters, digits, _ and -, with dots between, such as shop.public, and not %s",
			b.PublicTopic, outbox.LogTopic)
	}
	if u, err := url.Parse(b.PublicSource); err != nil || u.Scheme == "" {
		return fmt.Errorf("PUBLIC_SOURCE (--public-source) is %q: give an absolute URI that stays the same, such as https://shop.example.org", b.PublicSource)
	}
	return nil
}

func (b *Brokers) validateNATS() error {
	for address := range strings.SplitSeq(b.NATSURL, ",") {
		u, err := url.Parse(strings.TrimSpace(address))
		if b.NATSURL != "" && (err != nil || u.Host == "" || (u.Scheme != "nats" && u.Scheme != "tls")) {
			return errors.New("NATS_URL (--nats-url) cannot be read: give nats://host:port or tls://host:port, several with commas between")
		}
	}
	if b.NATSCredentials != "" {
		if _, err := os.Stat(b.NATSCredentials); err != nil {
			return fmt.Errorf("NATS_CREDENTIALS (--nats-credentials) is %q, which cannot be read: give the path of a .creds file", b.NATSCredentials)
		}
	}
	if b.NATSReplicas < 0 || b.NATSReplicas > 5 {
		return fmt.Errorf("NATS_REPLICAS (--nats-replicas) is %d: give 1 to 5", b.NATSReplicas)
	}
	return nil
}

func (b *Brokers) validateKafka() error {
	if len(b.KafkaBrokers) == 0 {
		return errors.New("KAFKA_BROKERS (--kafka-brokers) is not set: give host:port, several with commas between")
	}
	for _, address := range b.KafkaBrokers {
		if _, port, err := net.SplitHostPort(address); err != nil || port == "" {
			return fmt.Errorf("KAFKA_BROKERS (--kafka-brokers) holds %q: give host:port", address)
		}
	}
	if b.KafkaCA != "" {
		if _, err := os.Stat(b.KafkaCA); err != nil || !b.KafkaTLS {
			return fmt.Errorf("KAFKA_CA (--kafka-ca) is %q: give the path of a file of certificates, and set KAFKA_TLS", b.KafkaCA)
		}
	}
	if b.KafkaPassword != "" && b.KafkaUser == "" || b.KafkaUser != "" && b.KafkaPassword == "" {
		return errors.New("KAFKA_USER (--kafka-user) and KAFKA_PASSWORD (--kafka-password) go together: give both or neither")
	}
	return nil
}
