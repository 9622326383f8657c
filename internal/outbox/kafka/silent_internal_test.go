package kafka

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/headrace/headrace/internal/kafkatest"
)

// silent is a broker that takes connections and says nothing, as one does whose packets are dropped. The channel tells of
// each connection.
func silent(t *testing.T) (address string, connected <-chan struct{}) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan struct{}, 100)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			accepted <- struct{}{}
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-ended
	})
	return listener.Addr().String(), accepted
}

// deadline is the one time limit of a test's waits.
func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// want waits for an error of the kind.
func want(ctx context.Context, t *testing.T, what string, got <-chan error, kind error) {
	t.Helper()
	select {
	case err := <-got:
		if !errors.Is(err, kind) {
			t.Errorf("%s: got %v, want %v", what, err, kind)
		}
	case <-ctx.Done():
		t.Fatalf("%s does not end", what)
	}
}

// Whoever asks brokers that say nothing is let go when its context ends, also behind others that ask; and Close lets go all.
func TestBrokersThatSayNothingHoldUpNobody(t *testing.T) {
	t.Parallel()
	for name, call := range map[string]func(context.Context, *Broker) error{
		"Subscribe": func(ctx context.Context, b *Broker) error { _, err := b.Subscribe(ctx, "letters"); return err },
		"Provide":   func(ctx context.Context, b *Broker) error { return b.Provide(ctx, "letters") },
		"Publish": func(ctx context.Context, b *Broker) error {
			msg := withMetadata("1")
			msg.SetContext(ctx)
			return b.Publish("letters", msg)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := deadline(t)
			address, connected := silent(t)
			b := open(t, Config{Brokers: []string{address}, Group: "g"})
			brief, cancel := context.WithCancel(ctx)
			start := func(ctx context.Context) <-chan error {
				ended := make(chan error, 1)
				go func() { ended <- call(ctx, b) }()
				return ended
			}
			asking := start(brief)
			select {
			case <-connected:
			case <-ctx.Done():
				t.Fatal("it does not ask")
			}
			behind, patient := start(brief), start(ctx)
			cancel()
			want(ctx, t, "the one that asks", asking, context.Canceled)
			want(ctx, t, "the one behind it", behind, context.Canceled)
			if err := b.Close(); err != nil {
				t.Errorf("nothing was left to wait for, and Close says %v", err)
			}
			want(ctx, t, "the one that waits for ever", patient, ErrClosed)
		})
	}
}

// A broker that falls silent with a message on its way holds up neither who sent it nor Close.
func TestABrokerThatFallsSilentIsCutOff(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	s := kafkatest.Start(t)
	asked := make(chan struct{})
	s.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		close(asked)
		return nil, nil, true // and no answer
	})
	b := open(t, Config{Brokers: []string{s.Addr}})
	b.grace = 50 * time.Millisecond
	brief, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		msg := withMetadata("1")
		msg.SetContext(brief)
		ended <- b.Publish("letters", msg)
	}()
	select {
	case <-asked:
	case <-ctx.Done():
		t.Fatal("nothing is sent")
	}
	cancel()
	want(ctx, t, "Publish", ended, context.Canceled)
	if err := b.Close(); err == nil {
		t.Error("Close does not say that a message was on its way")
	}
}

func TestPatienceIsBounded(t *testing.T) {
	t.Parallel()
	b := open(t, Config{})
	if b.client.Net.DialTimeout > 5*time.Second || b.client.Metadata.Timeout == 0 || b.client.Metadata.Timeout > 10*time.Second {
		t.Errorf("a client waits %v for a connection and %v for metadata", b.client.Net.DialTimeout, b.client.Metadata.Timeout)
	}
	if b.asking.Metadata.Retry.Max != 0 || b.asking.Net.ReadTimeout > 5*time.Second {
		t.Errorf("who asks asks %d times more, %v each", b.asking.Metadata.Retry.Max, b.asking.Net.ReadTimeout)
	}
}
