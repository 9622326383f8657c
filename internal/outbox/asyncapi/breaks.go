package asyncapi

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Breaks tells what in the schemas now, by their names, would break those who read by the released ones. The rule: whatever
// is published must be valid by the schema that was released, and no field may go away. So a field may be added, or be
// always there where it was not; a new type may come; and a released type goes only when it is meant to. Each break is a
// line for people, in the order of the names.
func Breaks(released, now map[string][]byte) ([]string, error) {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(released)) {
		var before, after schema
		if err := json.Unmarshal(released[name], &before); err != nil {
			return nil, fmt.Errorf("the released schema %s: %w", name, err)
		}
		if now[name] == nil {
			all = append(all, name+": it is published no more")
			continue
		}
		if err := json.Unmarshal(now[name], &after); err != nil {
			return nil, fmt.Errorf("the schema %s: %w", name, err)
		}
		c := comparison{before: before, after: after, name: name, at: make(map[string]bool)}
		c.compare("", before, after)
		all = append(all, c.breaks...)
	}
	return all, nil
}

type schema = map[string]any

type comparison struct {
	before, after schema // the whole ones, with $defs
	name          string
	at            map[string]bool // pairs of references under comparison, since types may hold themselves
	breaks        []string
}

func (c *comparison) add(path, format string, args ...any) {
	if path != "" {
		path = " " + path
	}
	c.breaks = append(c.breaks, c.name+":"+path+" "+fmt.Sprintf(format, args...))
}

// notes are keywords that say nothing of what is valid.
var notes = []string{"$schema", "$id", "$comment", "$defs", "title", "description", "examples", "default", "deprecated", "readOnly", "writeOnly"}

func (c *comparison) compare(path string, before, after schema) {
	first, was := before["$ref"].(string)
	second, is := after["$ref"].(string)
	if was || is {
		if pair := first + " " + second; was && is {
			if c.at[pair] {
				return
			}
			c.at[pair] = true
			defer delete(c.at, pair)
		}
		before, after = resolve(c.before, before), resolve(c.after, after)
	}
	for _, keyword := range slices.Sorted(maps.Keys(before)) {
		if slices.Contains(notes, keyword) {
			continue
		}
		was, is := before[keyword], after[keyword]
		switch keyword {
		case "properties":
			c.properties(path, was, is)
		case "required":
			for _, field := range missing(was, is) {
				c.add(join(path, field), "is not always there any more")
			}
		case "enum":
			if is == nil {
				c.add(path, "may have any value")
			}
			for _, value := range missing(is, was) {
				c.add(path, "may be %s, which the released one may not", value)
			}
		case "items", "additionalProperties":
			inner, ok1 := was.(schema)
			other, ok2 := is.(schema)
			if ok1 && ok2 {
				c.compare(path+"[]", inner, other)
			} else if !reflect.DeepEqual(was, is) {
				c.add(path, "has other %s", keyword)
			}
		default:
			if !reflect.DeepEqual(was, is) {
				c.add(path, "has %s %s, and %s was released", keyword, compact(is), compact(was))
			}
		}
	}
}

func (c *comparison) properties(path string, was, is any) {
	before, _ := was.(schema)
	after, _ := is.(schema)
	for _, field := range slices.Sorted(maps.Keys(before)) {
		one, _ := before[field].(schema)
		other, still := after[field].(schema)
		if !still {
			c.add(join(path, field), "is gone")
			continue
		}
		c.compare(join(path, field), one, other)
	}
}

// missing are the elements of one list that are not in another.
func missing(of, in any) []string {
	list, _ := of.([]any)
	other, _ := in.([]any)
	var left []string
	for _, element := range list {
		if !slices.ContainsFunc(other, func(o any) bool { return reflect.DeepEqual(o, element) }) {
			left = append(left, strings.Trim(compact(element), `"`))
		}
	}
	return left
}

func resolve(root, s schema) schema {
	to, ok := s["$ref"].(string)
	if !ok {
		return s
	}
	name, _ := strings.CutPrefix(to, "#/$defs/")
	definitions, _ := root["$defs"].(schema)
	target, _ := definitions[name].(schema)
	return target
}

func join(path, field string) string {
	if path == "" {
		return field
	}
	return path + "." + field
}

func compact(v any) string {
	if v == nil {
		return "none"
	}
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(text)
}
