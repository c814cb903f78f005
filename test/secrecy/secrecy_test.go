package secrecy

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"unsafe"

	"skep/chunker/secret"
)

// canary is the secret in all values that are printed. No byte of it is one
// that text is made of.
var canary = func() (c [64]byte) {
	for i := range c {
		c[i] = byte(0x80 + 37*i%0x7f)
	}
	return c
}()

// shown reports in which form a text shows a part of the canary, or "".
func shown(text string) string {
	for at := 0; at+8 <= len(canary); at++ {
		part := canary[at : at+8]
		for form, s := range map[string]string{
			"as it is":    string(part),
			"hexadecimal": hex.EncodeToString(part),
			"decimal":     strings.Trim(fmt.Sprint(part), "[]"),
			"JSON":        strings.ReplaceAll(strings.Trim(fmt.Sprint(part), "[]"), " ", ","),
			"Go":          strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", part), "[]byte{"), "}"),
			"quoted":      strings.Trim(fmt.Sprintf("%q", part), `"`),
			"spaced":      fmt.Sprintf("% x", part),
			"escaped":     fmt.Sprintf("%+q", string(part))[1:25],
		} {
			if strings.Contains(text, s) || strings.Contains(strings.ToLower(text), s) {
				return form
			}
		}
	}
	for _, whole := range [][]byte{canary[:32], canary[:]} {
		for _, s := range []string{base64.StdEncoding.EncodeToString(whole), base64.URLEncoding.EncodeToString(whole),
			base32.StdEncoding.EncodeToString(whole)} {
			if strings.Contains(text, s[:20]) {
				return "base 32 or 64"
			}
		}
	}
	return ""
}

// A canary that nobody hides is found, in each of the ways in which values are
// printed here.
func TestTheTestSees(t *testing.T) {
	type open struct {
		Bytes []byte
		Array [32]byte
		small [32]byte
	}
	v := open{canary[:], [32]byte(canary[:]), [32]byte(canary[:])}
	for how, text := range printed(v) {
		if shown(text) == "" {
			t.Errorf("%s: not seen in %q", how, text)
		}
	}
	if shown(base64.StdEncoding.EncodeToString(canary[:32])) == "" || shown("nothing") != "" {
		t.Error("base 64, or nothing")
	}
	_ = v.small
}

// printed is a value in all the ways in which it could reach a log.
func printed(v any) map[string]string {
	out := map[string]string{}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "% x"} {
		out[verb] = fmt.Sprintf(verb, v)
	}
	out["in a slice"] = fmt.Sprintf("%+v", []any{v})
	out["in an error"] = fmt.Errorf("failed: %w, %v", errors.New("x"), v).Error()
	if b, err := json.Marshal(v); err == nil {
		out["json"] = string(b)
	}
	var logged bytes.Buffer
	log.New(&logged, "", 0).Print(v)
	slog.New(slog.NewTextHandler(&logged, nil)).Error("x", "v", v, slog.Group("g", "v", v))
	slog.New(slog.NewJSONHandler(&logged, nil)).Error("x", "v", v, slog.Group("g", "v", v))
	out["logs"] = logged.String()
	return out
}

// No carrier of a secret shows it: itself, in a struct or a list, or behind a
// pointer; and those that run, in a struct or a list of pointers, too.
func TestNothingIsShown(t *testing.T) {
	for _, typ := range carriers {
		v := filled(t, typ)
		shownNowhere(t, typ, v.Interface())
		shownWithinNothing(t, typ, v.Elem().Interface())
	}
	for _, typ := range running {
		shownWithinNothing(t, typ, filled(t, typ).Interface())
	}
}

// filled is a pointer to a value whose secrets are the canary.
func filled(t *testing.T, typ reflect.Type) reflect.Value {
	t.Helper()
	v := reflect.New(typ)
	if !fill(v.Elem(), 0) {
		t.Errorf("%v carries no secret", typ)
	}
	return v
}

func shownWithinNothing(t *testing.T, typ reflect.Type, value any) {
	t.Helper()
	for _, v := range []any{value, struct{ Field any }{value}, []any{value}} {
		shownNowhere(t, typ, v)
	}
}

func shownNowhere(t *testing.T, typ reflect.Type, value any) {
	t.Helper()
	for how, text := range printed(value) {
		if form := shown(text); form != "" {
			t.Errorf("%v, as a %T, printed with %s shows its secret (%s)", typ, value, how, form)
		}
	}
}

// fill puts the canary where a value can carry a secret, and reports whether
// there is such a place.
func fill(v reflect.Value, depth int) (secrets bool) {
	if depth > 9 {
		return false
	}
	if !v.CanSet() && v.CanAddr() { // an unexported field
		v = reflect.NewAt(v.Type(), unsafe.Pointer(v.UnsafeAddr())).Elem()
	}
	switch v.Type() {
	case reflect.TypeFor[secret.Key]():
		v.Set(reflect.ValueOf(secret.Key(canary[:])))
		return true
	case reflect.TypeFor[ed25519.PrivateKey]():
		v.Set(reflect.ValueOf(ed25519.PrivateKey(canary[:])))
		return true
	}
	switch v.Kind() {
	case reflect.Struct:
		if v.Type().Name() == "Entropy" {
			return fillBytes(v)
		}
		for i := range v.NumField() {
			secrets = fill(v.Field(i), depth+1) || secrets
		}
	case reflect.Pointer:
		if !strings.HasPrefix(v.Type().Elem().PkgPath(), "skep/") {
			return false
		}
		v.Set(reflect.New(v.Type().Elem()))
		return fill(v.Elem(), depth+1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		return fill(v.Index(0), depth+1)
	case reflect.Map:
		e := reflect.New(v.Type().Elem()).Elem()
		if secrets = fill(e, depth+1); secrets {
			v.Set(reflect.MakeMap(v.Type()))
			v.SetMapIndex(reflect.Zero(v.Type().Key()), e)
		}
	case reflect.Array:
		for i := range min(v.Len(), 2) {
			secrets = fill(v.Index(i), depth+1) || secrets
		}
	}
	return secrets
}

// fillBytes puts the canary into a struct's array of bytes.
func fillBytes(v reflect.Value) bool {
	for i := range v.NumField() {
		f := reflect.NewAt(v.Field(i).Type(), unsafe.Pointer(v.Field(i).UnsafeAddr())).Elem()
		switch f.Kind() {
		case reflect.Array:
			reflect.Copy(f, reflect.ValueOf(canary[:f.Len()]))
		case reflect.Int:
			f.SetInt(16)
		}
	}
	return true
}
