package eventstore

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"unicode/utf8"
)

// prepared is a request that was checked and encoded in its caller's goroutine, so that the appender only sends.
type prepared struct {
	request  *Request
	parts    []part
	events   []encoded
	metadata []byte
	claims   []string
	releases []string
	messages []encodedMessage
	bytes    int
}

type part struct {
	stream   string
	expected ExpectedVersion
	events   int
}

type encoded struct {
	id            [16]byte
	typ           string
	schemaVersion int16
	data          []byte
}

type encodedMessage struct {
	Message
	headers []byte
}

// prepare checks a request against the limits and encodes it.
func (s *Store) prepare(r *Request) (*prepared, error) {
	p := &prepared{request: r, parts: make([]part, 0, 1+len(r.Also))}
	count := len(r.Events)
	for i := range r.Also {
		count += len(r.Also[i].Events)
	}
	if count > s.cfg.MaxEvents {
		return nil, invalid("events", "%d are more than the limit of %d", count, s.cfg.MaxEvents)
	}
	p.events = make([]encoded, 0, count)
	if err := s.preparePart(p, "", StreamAppend{r.Stream, r.Expected, r.Events}); err != nil {
		return nil, err
	}
	for i, also := range r.Also {
		if slices.ContainsFunc(p.parts, func(x part) bool { return x.stream == also.Stream }) {
			return nil, invalid(fmt.Sprintf("also[%d].stream", i), "%q comes twice", also.Stream)
		}
		if len(also.Events) == 0 {
			return nil, invalid(fmt.Sprintf("also[%d].events", i), "there are none")
		}
		if err := s.preparePart(p, fmt.Sprintf("also[%d].", i), also); err != nil {
			return nil, err
		}
	}
	if err := s.prepareRest(p); err != nil {
		return nil, err
	}
	if count == 0 && r.CommandID.ID == "" && len(p.claims)+len(p.releases)+len(p.messages) == 0 {
		return nil, invalid("events", "there is nothing to append")
	}
	return p, nil
}

func (s *Store) preparePart(p *prepared, field string, a StreamAppend) error {
	if err := s.checkName(field+"stream", a.Stream); err != nil {
		return err
	}
	if a.Expected < Any {
		return invalid(field+"expected", "%d is no version", a.Expected)
	}
	p.parts = append(p.parts, part{a.Stream, a.Expected, len(a.Events)})
	for i, payload := range a.Events {
		typ, version, data, err := s.registry.Encode(payload)
		if err != nil {
			return err
		}
		if reason := s.checkJSON(data); reason != "" {
			return invalid(fmt.Sprintf("%sevents[%d]", field, i), "%s", reason)
		}
		p.events = append(p.events, encoded{newID(), typ, int16(version), data})
		p.bytes += len(data)
	}
	return nil
}

func (s *Store) prepareRest(p *prepared) error {
	r := p.request
	var err error
	if p.metadata, err = json.Marshal(r.Metadata); err != nil {
		return fmt.Errorf("encoding metadata: %w", err)
	}
	if reason := s.checkJSON(p.metadata); reason != "" {
		return invalid("metadata", "%s", reason)
	}
	p.bytes += len(p.metadata) * len(p.events)
	if r.CommandID.ID != "" {
		if err := s.checkName("commandId", r.CommandID.ID); err != nil {
			return err
		}
	}
	if r.CommandID.Actor != "" {
		if err := s.checkName("actor", r.CommandID.Actor); err != nil {
			return err
		}
	}
	if err := s.prepareClaims(p); err != nil {
		return err
	}
	return s.prepareMessages(p)
}

// prepareClaims drops what a request both claims and releases: the key stays as it is.
func (s *Store) prepareClaims(p *prepared) error {
	r := p.request
	for _, keys := range [][]string{r.Claim, r.Release} {
		for _, key := range keys {
			if err := s.checkName("claim", key); err != nil {
				return err
			}
		}
	}
	without := func(keys, others []string) []string {
		var left []string
		for _, key := range keys {
			if !slices.Contains(others, key) && !slices.Contains(left, key) {
				left = append(left, key)
			}
		}
		return left
	}
	p.claims, p.releases = without(r.Claim, r.Release), without(r.Release, r.Claim)
	if len(p.claims)+len(p.releases) > s.cfg.MaxEvents {
		return invalid("claim", "%d are more than the limit of %d", len(p.claims)+len(p.releases), s.cfg.MaxEvents)
	}
	return nil
}

func (s *Store) prepareMessages(p *prepared) error {
	r := p.request
	if len(r.Messages) > s.cfg.MaxEvents {
		return invalid("messages", "%d are more than the limit of %d", len(r.Messages), s.cfg.MaxEvents)
	}
	for i, m := range r.Messages {
		field := fmt.Sprintf("messages[%d]", i)
		if err := s.checkName(field+".topic", m.Topic); err != nil {
			return err
		}
		if m.Key != "" {
			if err := s.checkName(field+".key", m.Key); err != nil {
				return err
			}
		}
		if !json.Valid(m.Payload) {
			return invalid(field+".payload", "it is not JSON")
		}
		if reason := s.checkJSON(m.Payload); reason != "" {
			return invalid(field+".payload", "%s", reason)
		}
		if m.Delay < 0 {
			return invalid(field+".delay", "it is negative")
		}
		if m.ID == ([16]byte{}) {
			m.ID = newID()
		}
		headers := m.Headers
		if headers == nil {
			headers = map[string]string{}
		}
		encodedHeaders, err := json.Marshal(headers)
		if err != nil {
			return fmt.Errorf("encoding headers: %w", err)
		}
		if reason := s.checkJSON(encodedHeaders); reason != "" {
			return invalid(field+".headers", "%s", reason)
		}
		p.messages = append(p.messages, encodedMessage{m, encodedHeaders})
		p.bytes += len(m.Payload) + len(encodedHeaders)
	}
	return nil
}

func invalid(field, format string, args ...any) error {
	return &InvalidRequestError{Field: field, Reason: fmt.Sprintf(format, args...)}
}

func (s *Store) checkName(field, name string) error {
	switch {
	case name == "":
		return invalid(field, "it is empty")
	case len(name) > s.cfg.MaxNameBytes:
		return invalid(field, "%d bytes are more than the limit of %d", len(name), s.cfg.MaxNameBytes)
	case !utf8.ValidString(name):
		return invalid(field, "it is not valid UTF-8")
	case bytes.IndexByte([]byte(name), 0) >= 0:
		return invalid(field, "it holds a NUL character")
	}
	return nil
}

// checkJSON finds what is valid JSON for Go and not for Postgres's jsonb, or was changed on the way: it returns the
// reason, or "". The data comes from json.Marshal or passed json.Valid, so its form needs no second look.
func (s *Store) checkJSON(data []byte) string {
	if len(data) > s.cfg.MaxEventBytes {
		return fmt.Sprintf("%d bytes are more than the limit of %d", len(data), s.cfg.MaxEventBytes)
	}
	depth, inString := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case c == '"':
			inString = !inString
		case inString && c == '\\':
			skip, reason := checkEscape(data[i:])
			if reason != "" {
				return reason
			}
			i += skip
		case inString:
		case c == '{' || c == '[':
			if depth++; depth > s.cfg.MaxDepth {
				return fmt.Sprintf("it nests deeper than %d", s.cfg.MaxDepth)
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	if !utf8.Valid(data) {
		return "it is not valid UTF-8"
	}
	return ""
}

// checkEscape looks at the escape at the start of data and tells how many bytes after the backslash belong to it.
func checkEscape(data []byte) (skip int, reason string) {
	if len(data) < 6 || data[1] != 'u' {
		return 1, ""
	}
	switch code := hex4(data[2:6]); {
	case code == 0:
		return 0, "it holds a NUL character (\\u0000), which Postgres cannot store"
	case code == 0xfffd:
		// json.Marshal writes this escape in place of bytes that are not UTF-8, and the character itself as it is.
		return 0, "it holds text that is not valid UTF-8"
	case code >= 0xdc00 && code <= 0xdfff:
		return 0, "it holds half of a surrogate pair, which Postgres cannot store"
	case code >= 0xd800 && code <= 0xdbff:
		if len(data) < 12 || data[6] != '\\' || data[7] != 'u' {
			return 0, "it holds half of a surrogate pair, which Postgres cannot store"
		}
		if low := hex4(data[8:12]); low < 0xdc00 || low > 0xdfff {
			return 0, "it holds half of a surrogate pair, which Postgres cannot store"
		}
		return 11, ""
	}
	return 5, ""
}

func hex4(digits []byte) (code int) {
	for _, c := range digits {
		code <<= 4
		switch {
		case c >= '0' && c <= '9':
			code |= int(c - '0')
		case c >= 'a' && c <= 'f':
			code |= int(c-'a') + 10
		case c >= 'A' && c <= 'F':
			code |= int(c-'A') + 10
		}
	}
	return code
}
