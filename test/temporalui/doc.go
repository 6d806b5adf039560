// Package temporalui looks at reservations in Temporal UI, in a headless Chromium.
package temporalui
