package api

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/keys"
)

const (
	// signInLasts is how long a browser stays signed in.
	signInLasts = 12 * time.Hour
	// signInCookie names the cookie. It holds the id of a key and a signature, never the key.
	signInCookie = "earmark_sign_in"
	// maxSignInBytes bounds the form.
	maxSignInBytes = 4 << 10
	// signInPolicy lets the page load its style and send its forms here.
	signInPolicy = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)

//go:embed signin.html
var signInHTML string

var signInTemplate = template.Must(template.New("sign-in").Parse(signInHTML))

// signIns signs cookies with a secret of this process: a restart signs everybody out, and a cookie is good for the
// server that set it.
type signIns struct {
	secret [sha256.Size]byte
	now    func() time.Time
}

func newSignIns() *signIns {
	s := &signIns{now: time.Now}
	_, _ = rand.Read(s.secret[:]) // never fails, see crypto/rand
	return s
}

// issue is the value of a cookie for a key.
func (s *signIns) issue(keyID string) string {
	text := keyID + "." + strconv.FormatInt(s.now().Add(signInLasts).Unix(), 10)
	return text + "." + s.sign(text)
}

// keyID is the id of the key that a cookie was issued for; empty where it was not, or is over.
func (s *signIns) keyID(cookie string) string {
	end := strings.LastIndexByte(cookie, '.')
	if end < 0 || !hmac.Equal([]byte(s.sign(cookie[:end])), []byte(cookie[end+1:])) { // mutation: sign-in
		return ""
	}
	id, until, _ := strings.Cut(cookie[:end], ".")
	seconds, err := strconv.ParseInt(until, 10, 64)
	if err != nil || !s.now().Before(time.Unix(seconds, 0)) {
		return ""
	}
	return id
}

func (s *signIns) sign(text string) string {
	mac := hmac.New(sha256.New, s.secret[:])
	_, _ = mac.Write([]byte(text)) // never fails, see hash.Hash
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// signedIn is the key with which the browser has signed in; nil where it has not.
func (s *server) signedIn(c *gin.Context) (*earmark.Key, error) {
	cookie, err := c.Request.Cookie(signInCookie)
	if err != nil {
		return nil, nil //nolint:nilerr // there is no cookie
	}
	id := s.signIns.keyID(cookie.Value)
	if id == "" {
		return nil, unauthenticated("the sign-in is over; sign in again")
	}
	return s.credentials.checkID(c.Request.Context(), id)
}

// signInPage is what the page shows.
type signInPage struct {
	WithoutKeys bool
	Problem     string
	Key         *earmark.Key
}

// showSignIn is the form, and who is signed in.
func (s *server) showSignIn(c *gin.Context) error {
	if s.credentials == nil {
		return s.renderSignIn(c, http.StatusOK, signInPage{WithoutKeys: true})
	}
	key, err := s.signedIn(c)
	if err != nil && earmark.ErrorCode(err) != earmark.CodeUnauthenticated {
		return err
	}
	return s.renderSignIn(c, http.StatusOK, signInPage{Key: key})
}

// signIn takes a key from the form, and sets the cookie.
func (s *server) signIn(c *gin.Context) error {
	if s.credentials == nil {
		return s.renderSignIn(c, http.StatusOK, signInPage{WithoutKeys: true})
	}
	c.Request.Body = http.MaxBytesReader(c.Writer, c.Request.Body, maxSignInBytes)
	key, err := s.keyOf(c.Request.Context(), strings.TrimSpace(c.PostForm("key")))
	switch {
	case earmark.ErrorCode(err) == earmark.CodeUnauthenticated:
		problem := asError(err).Message
		return s.renderSignIn(c, http.StatusUnauthorized, signInPage{Problem: strings.ToUpper(problem[:1]) + problem[1:] + "."})
	case err != nil:
		return err
	}
	s.setSignIn(c, s.signIns.issue(key.ID), int(signInLasts/time.Second))
	redirect(c, ".")
	return nil
}

// signOut takes the cookie back.
func (s *server) signOut(c *gin.Context) error {
	s.setSignIn(c, "", -1)
	redirect(c, "sign-in")
	return nil
}

// keyOf is the key of this text.
func (s *server) keyOf(ctx context.Context, text string) (*earmark.Key, error) {
	token, err := keys.Parse(text)
	if err != nil {
		return nil, unauthenticated("the key is %w", err)
	}
	return s.credentials.check(ctx, token)
}

// setSignIn sets the cookie for the paths beside this one: a proxy may serve Earmark below a path of its own.
func (s *server) setSignIn(c *gin.Context, value string, maxAge int) {
	http.SetCookie(c.Writer, &http.Cookie{ //nolint:gosec // Secure where the browser speaks TLS: on loopback it does not
		Name: signInCookie, Value: value, MaxAge: maxAge, HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: c.Request.TLS != nil || strings.EqualFold(c.GetHeader("X-Forwarded-Proto"), "https"),
	})
}

// redirect leads to a path beside this one.
func redirect(c *gin.Context, path string) {
	c.Header("Location", path)
	c.Status(http.StatusSeeOther)
}

func (s *server) renderSignIn(c *gin.Context, status int, page signInPage) error {
	var body bytes.Buffer
	if err := signInTemplate.Execute(&body, page); err != nil {
		return err
	}
	c.Header("Content-Security-Policy", signInPolicy)
	c.Header("X-Content-Type-Options", "nosniff")
	c.Header("Referrer-Policy", "same-origin") // a browser names the origin of a form only so
	c.Data(status, "text/html; charset=utf-8", body.Bytes())
	return nil
}
