package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
)

// settings are the merged values by option name, and which of them some source gave.
type settings struct {
	value map[string]any
	given map[string]bool
	// hashSeed is PYTHONHASHSEED: whoever gives it to the engines and to kvctrld alike
	// need not name it.
	hashSeed string
}

// addFlags declares every option as a flag with its default. A flag may be written as
// any of its keys (--controller_port=9000), which is LMCache's other form of key=value.
func addFlags(fs *pflag.FlagSet) {
	fs.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if o, ok := optionNamed(name); ok {
			name = o.name
		}
		return pflag.NormalizedName(name)
	})
	fs.String("config", "", "YAML file with any of these settings as keys")
	for _, o := range serveOptions {
		switch d := o.def.(type) {
		case string:
			fs.String(o.name, d, o.usage)
		case int:
			fs.Int(o.name, d, o.usage)
		case float64:
			fs.Float64(o.name, d, o.usage)
		case time.Duration:
			fs.Var(&durationFlag{o, d}, o.name, o.usage)
		case []string:
			fs.StringSlice(o.name, d, o.usage)
		default:
			panic(fmt.Sprintf("bug: option %s has a default of type %T", o.name, o.def))
		}
	}
}

// durationFlag takes what the other sources take: 30s, or seconds as LMCache writes them.
type durationFlag struct {
	option option
	d      time.Duration
}

func (f *durationFlag) String() string { return f.d.String() }
func (f *durationFlag) Type() string   { return "duration" }
func (f *durationFlag) Set(text string) error {
	v, err := parse(f.option, text)
	if err == nil {
		f.d = v.(time.Duration)
	}
	return err
}

// loadConfig merges all sources, weakest first: defaults, YAML file, environment
// (LMCache's names, then ours), flags, key=value words. An unknown key anywhere is
// an error that names the nearest known one.
func loadConfig(fs *pflag.FlagSet, words, environ []string) (config, error) {
	merged := settings{value: map[string]any{}, given: map[string]bool{}}
	for _, o := range serveOptions {
		merged.value[o.name] = o.def
	}
	env := environment(environ)
	merged.hashSeed = env["PYTHONHASHSEED"]

	path, _ := fs.GetString("config")
	from := "--config"
	for _, name := range []string{"KVCTRL_CONFIG", "LMCACHE_CONTROLLER_CONFIG_FILE"} {
		if path == "" {
			path, from = env[name], name
		}
	}
	var faults []error
	if path != "" {
		faults = append(faults, mergeFile(merged, path, from)...)
	}
	faults = append(faults, mergeEnvironment(merged, env)...)
	fs.Visit(func(f *pflag.Flag) {
		if o, ok := optionNamed(f.Name); ok {
			faults = append(faults, set(merged, o, f.Value.String(), "--"+f.Name))
		}
	})
	for _, w := range words {
		faults = append(faults, mergeWord(merged, w))
	}
	if err := errors.Join(faults...); err != nil {
		return config{}, err
	}
	return buildConfig(merged)
}

func mergeFile(merged settings, path, from string) []error {
	k := koanf.New("\x00") // keys may hold dots; nothing nests
	if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
		return []error{fmt.Errorf("%s %q: %w", from, path, err)}
	}
	raw := k.Raw()
	var faults []error
	for _, key := range sortedKeys(raw) {
		o, ok := optionNamed(key)
		switch {
		case unread(key):
		case !ok:
			faults = append(faults, fmt.Errorf("%s: %w", path, unknownKey(key)))
		case raw[key] == nil: // an empty value leaves the default
		default:
			faults = append(faults, set(merged, o, text(raw[key]), path+": "+key))
		}
	}
	return faults
}

func mergeEnvironment(merged settings, env map[string]string) []error {
	var faults []error
	for _, prefix := range []string{"LMCACHE_CONTROLLER_", "KVCTRL_"} {
		for _, name := range sortedKeys(env) {
			key, ours := strings.CutPrefix(name, prefix)
			if !ours || clientVariable(name) || serviceLink(name, env[name]) {
				continue
			}
			o, ok := optionNamed(strings.ToLower(key))
			if !ok {
				faults = append(faults, fmt.Errorf("environment %s: %w", name, unknownKey(strings.ToLower(key))))
				continue
			}
			faults = append(faults, set(merged, o, env[name], "environment "+name))
		}
	}
	return faults
}

// clientVariable reports names that share our prefixes and are no setting of serve.
func clientVariable(name string) bool {
	switch name {
	case "KVCTRL_CONFIG", "KVCTRL_ADDR", "KVCTRL_TOKEN", "KVCTRL_CACERT", "KVCTRL_CERT", "KVCTRL_KEY", "LMCACHE_CONTROLLER_CONFIG_FILE", "LMCACHE_CONTROLLER_EXTRA_CONFIG":
		return true
	case "LMCACHE_CONTROLLER_URL", "LMCACHE_CONTROLLER_PULL_URL", "LMCACHE_CONTROLLER_REPLY_URL":
		return true // where an engine finds its controller: on one machine they share the environment
	}
	return strings.HasPrefix(name, "KVCTRL_INTEROP_") || strings.HasPrefix(name, "KVCTRL_TEST_")
}

var serviceLinkName = regexp.MustCompile(`^KVCTRL_(SERVICE_(HOST|PORT(_.*)?)|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)

// serviceLink reports a variable that Kubernetes sets in every pod beside a Service
// named kvctrl. KVCTRL_PORT is one of them when it is an address.
func serviceLink(name, value string) bool {
	return serviceLinkName.MatchString(name) || name == "KVCTRL_PORT" && strings.Contains(value, "://")
}

// mergeWord takes one of LMCache's trailing key=value words.
func mergeWord(merged settings, word string) error {
	key, value, ok := strings.Cut(strings.TrimPrefix(word, "--"), "=")
	if !ok {
		return fmt.Errorf("argument %q: want key=value", word)
	}
	if unread(key) {
		return nil
	}
	o, known := optionNamed(key)
	if !known {
		return fmt.Errorf("argument %q: %w", word, unknownKey(key))
	}
	return set(merged, o, value, "argument "+word)
}

// unread is a key of LMCache's that its controller takes and nobody reads.
func unread(key string) bool { return dashed(key) == "extra-config" }

// set reads a text as the option's type and stores it.
func set(merged settings, o option, value, from string) error {
	v, err := parse(o, value)
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	merged.value[o.name], merged.given[o.name] = v, true
	return nil
}

func parse(o option, value string) (any, error) {
	value = strings.TrimSpace(value)
	switch o.def.(type) {
	case string:
		return value, nil
	case int:
		n, err := strconv.Atoi(value)
		if err != nil {
			return nil, fmt.Errorf("%s is %q, want a whole number", o.name, value)
		}
		return n, nil
	case float64:
		f, err := strconv.ParseFloat(value, 64)
		if err != nil || f != f {
			return nil, fmt.Errorf("%s is %q, want a number", o.name, value)
		}
		return f, nil
	case time.Duration:
		if s, err := strconv.ParseFloat(value, 64); err == nil && s >= -maxSeconds && s <= maxSeconds { // LMCache writes seconds
			return time.Duration(s * float64(time.Second)), nil
		}
		d, err := time.ParseDuration(value)
		if err != nil {
			return nil, fmt.Errorf("%s is %q, want a duration such as 30s", o.name, value)
		}
		return d, nil
	case []string:
		var list []string
		for _, s := range strings.Split(strings.Trim(value, "[]"), ",") {
			if s = strings.TrimSpace(s); s != "" {
				list = append(list, s)
			}
		}
		return list, nil
	}
	panic(fmt.Sprintf("bug: option %s has a default of type %T", o.name, o.def))
}

// maxSeconds is the largest time that a setting takes: beyond any use, and far from
// where a time.Duration ends.
const maxSeconds = 1_000_000_000

func environment(environ []string) map[string]string {
	env := map[string]string{}
	for _, kv := range environ {
		if k, v, ok := strings.Cut(kv, "="); ok {
			env[k] = v
		}
	}
	return env
}

// text gives a YAML value the form a flag would have.
func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case []any:
		var parts []string
		for _, p := range v {
			parts = append(parts, fmt.Sprint(p))
		}
		return strings.Join(parts, ",")
	case map[string]any:
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Sprint(v)
		}
		return string(b)
	default:
		return fmt.Sprint(v)
	}
}

func dashed(s string) string { return strings.ReplaceAll(strings.ToLower(s), "_", "-") }

func oneOf(s string, choices ...string) bool {
	for _, c := range choices {
		if s == c {
			return true
		}
	}
	return false
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// osEnviron is the process environment; tests pass their own to loadConfig.
func osEnviron() []string { return os.Environ() }
