package transport

import (
	"net/http"
	"strconv"
	"strings"
)

// accepted is what a client can take. The zero value is nothing.
type accepted struct {
	json   string // the media type of a plain answer; "" when it takes none
	events bool   // it takes server-sent events
	prefer bool   // it takes them rather than a plain answer, whatever the operation
}

// negotiate reads the Accept header. None, and a range that fits both media types, stand for application/json, which is
// what the clients that say no more understand; both named alike stand for the newer. Server-sent events must be named,
// so that a client that takes anything is told to ask for them.
func negotiate(header http.Header) accepted {
	lines := header["Accept"]
	switch {
	case len(lines) == 0 || (len(lines) == 1 && (lines[0] == "" || lines[0] == "*/*" || lines[0] == typeJSON)):
		return accepted{json: typeJSON}
	case len(lines) == 1 && lines[0] == typeResponse:
		return accepted{json: typeResponse}
	}
	var plain, response, events quality
	for _, line := range lines {
		for part := range strings.SplitSeq(line, ",") {
			mediaRange, q, ok := element(part)
			if !ok {
				continue
			}
			plain.consider(typeJSON, mediaRange, q)
			response.consider(typeResponse, mediaRange, q)
			events.consider(typeEvents, mediaRange, q)
		}
	}
	var a accepted
	switch {
	case response.q > plain.q || (response.q > 0 && response.q == plain.q && response.fit == exact):
		a.json = typeResponse
	case plain.q > 0:
		a.json = typeJSON
	}
	a.events = events.q > 0 && events.fit > anything
	a.prefer = a.events && events.q > max(plain.q, response.q)
	return a
}

// element reads one element of the header. One whose q is none counts for nothing.
func element(text string) (mediaRange string, q float64, ok bool) {
	mediaRange, parameters, _ := strings.Cut(text, ";")
	mediaRange, q = strings.ToLower(strings.TrimSpace(mediaRange)), 1
	for parameters != "" {
		var parameter string
		parameter, parameters, _ = strings.Cut(parameters, ";")
		name, value, _ := strings.Cut(parameter, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "q") {
			continue
		}
		var err error
		if q, err = strconv.ParseFloat(strings.TrimSpace(value), 64); err != nil || !(q >= 0 && q <= 1) {
			return "", 0, false
		}
	}
	return mediaRange, q, true
}

// How closely a media range names a media type.
const (
	anything = iota + 1
	sameKind
	exact
)

// quality is the weight that a client gives a media type, by the range that names it most closely.
type quality struct {
	q   float64
	fit int
}

func (a *quality) consider(mediaType, mediaRange string, q float64) {
	fit := 0
	kind, _, _ := strings.Cut(mediaType, "/")
	switch {
	case mediaRange == mediaType:
		fit = exact
	case strings.TrimSuffix(mediaRange, "/*") == kind && mediaRange != kind:
		fit = sameKind
	case mediaRange == "*/*":
		fit = anything
	default:
		return
	}
	if fit > a.fit || (fit == a.fit && q > a.q) {
		a.q, a.fit = q, fit
	}
}
