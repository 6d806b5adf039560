package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/fairqueue"
	"github.com/earmark-dev/earmark/internal/keys"
)

const (
	// signInLasts is how long a browser stays signed in.
	signInLasts = 12 * time.Hour
	// signInCookie names the cookie. It holds a signInToken, nothing of the key.
	signInCookie = "earmark_sign_in"
	// signInTokenBytes are as many as make a guess hopeless.
	signInTokenBytes = 32
	// maxSignInBytes bounds the form.
	maxSignInBytes = 4 << 10
	// signInPolicy lets the page load its style and send its forms here.
	signInPolicy = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)

//go:embed signin.html
var signInHTML string

var signInTemplate = template.Must(template.New("sign-in").Parse(signInHTML))

// signInToken is the value of a cookie: random text. Postgres has its hash, and the key that the browser signed in with.
type signInToken string

func newSignInToken() signInToken {
	var random [signInTokenBytes]byte
	_, _ = rand.Read(random[:]) // never fails, see crypto/rand
	return signInToken(base64.RawURLEncoding.EncodeToString(random[:]))
}

// isSignInToken reports whether the text has the form of a token.
func isSignInToken(text string) bool {
	random, err := base64.RawURLEncoding.DecodeString(text)
	return err == nil && len(random) == signInTokenBytes
}

func (t signInToken) hash() [sha256.Size]byte { return sha256.Sum256([]byte(t)) }

// cacheID differs from the id of every key, and tells nothing of the token.
func (t signInToken) cacheID() string {
	hash := t.hash()
	return "sign-in " + string(hash[:])
}

func signInIsOver() error { return unauthenticated("the sign-in is over; sign in again") }

// signedIn is the key with which the browser has signed in; nil where it has not.
func (s *server) signedIn(c *gin.Context) (*earmark.Key, error) {
	cookie, err := c.Request.Cookie(signInCookie)
	switch {
	case err != nil:
		return nil, nil //nolint:nilerr // there is no cookie
	case !isSignInToken(cookie.Value):
		return nil, signInIsOver()
	}
	return s.credentials.checkSignIn(c.Request.Context(), signInToken(cookie.Value))
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
	token := newSignInToken()
	if err := s.changeSignIn(c, key, func(ctx context.Context) error { return s.ledger.CreateSignIn(ctx, token.hash(), key.ID, signInLasts) }); err != nil {
		return err
	}
	s.setSignIn(c, string(token), int(signInLasts/time.Second))
	redirect(c, ".")
	return nil
}

// signOut ends the sign-in, and takes the cookie back once that is certain.
func (s *server) signOut(c *gin.Context) error {
	if cookie, err := c.Request.Cookie(signInCookie); err == nil && s.credentials != nil && isSignInToken(cookie.Value) {
		if err := s.endSignIn(c, signInToken(cookie.Value)); err != nil {
			return err
		}
	}
	s.setSignIn(c, "", -1)
	redirect(c, "sign-in")
	return nil
}

// endSignIn makes the cookie worthless, also for whoever has a copy of it.
func (s *server) endSignIn(c *gin.Context, token signInToken) error {
	credential, err := s.credentials.lookupSignIn(c.Request.Context(), token) // in the queue for strangers
	if err != nil || credential == nil {
		return err
	}
	err = s.changeSignIn(c, &credential.Key, func(ctx context.Context) error { return s.ledger.EndSignIn(ctx, token.hash()) })
	if err == nil {
		s.credentials.forgetSignIn(token)
	}
	return err
}

// changeSignIn runs a change in its queue, in the turn of the key.
func (s *server) changeSignIn(c *gin.Context, key *earmark.Key, change func(ctx context.Context) error) error {
	ctx := c.Request.Context()
	_, err := inQueue(ctx, s.queues.changes, fairqueue.Caller{Tenant: key.Tenant, Scope: key.ID}, func() (struct{}, error) { return struct{}{}, change(ctx) })
	return err
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
