import { loadConfig } from '#src/config.ts'
import { expect, test } from 'vitest'

const minimal = { PURSER_DATABASE_URL: 'postgres://purser_app@127.0.0.1:5432/purser' }

test('a database is all that has to be said', () => {
  expect(loadConfig(minimal)).toMatchObject({
    database: { maxConnections: 12 },
    api: { host: '127.0.0.1', port: 8080, operatorKey: undefined },
    providers: [],
    temporal: { address: '127.0.0.1:7233', namespace: 'default', taskQueue: 'purser-runs' },
  })
})

test('all problems are named at once', () => {
  const bad = {
    PURSER_DATABASE_URL: 'mysql://x',
    PURSER_API_PORT: '99999',
    PURSER_PROVIDERS: '{',
    PURSER_DRAIN_TIMEOUT_MS: '-1',
  }
  const names = Object.keys(bad)
  expect(() => loadConfig(bad)).toThrow(new RegExp(names.map((name) => `(?=[\\s\\S]*${name})`).join('')))
})

test('an unknown field of a provider is refused, and so is a missing key', () => {
  const providers = JSON.stringify([{ name: 'a', baseUrl: 'http://127.0.0.1:1/v1', apikey: 'x' }])
  expect(() => loadConfig({ ...minimal, PURSER_PROVIDERS: providers })).toThrow(/PURSER_PROVIDERS\.0/)
})
