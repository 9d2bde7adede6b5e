import { loadConfig } from '#src/config.ts'
import { expect, test } from 'vitest'

const minimal = { PURSER_DATABASE_URL: 'postgres://purser_app@127.0.0.1:5432/purser' }

test('a database is all that has to be said', () => {
  expect(loadConfig(minimal)).toMatchObject({
    database: { maxConnections: 12 },
    api: { host: '127.0.0.1', port: 8080, operatorKey: undefined, trustedProxies: [] },
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

test('proxies are trusted by address or network, and anything else is refused', () => {
  const trusting = (text: string) => loadConfig({ ...minimal, PURSER_TRUSTED_PROXIES: text }).api.trustedProxies
  expect(trusting('10.0.0.7, 10.1.0.0/16,::1')).toEqual(['10.0.0.7', '10.1.0.0/16', '::1'])
  expect(() => trusting('10.0.0.7,loadbalancer')).toThrow(/PURSER_TRUSTED_PROXIES\.1/)
})

test('providers are asked through the proxies of the environment where node is told to use them, and only there', () => {
  const named = { HTTPS_PROXY: 'http://proxy.test:3128', http_proxy: '', NO_PROXY: '.internal' }
  const switched = { ...minimal, ...named, NODE_USE_ENV_PROXY: '1' }
  expect(loadConfig({ ...minimal, ...named }).proxy).toBeUndefined()
  expect(loadConfig(switched).proxy).toEqual({
    http: undefined,
    https: 'http://proxy.test:3128',
    except: '.internal',
  })
  expect(loadConfig({ ...switched, https_proxy: 'http://other.test' }).proxy).toMatchObject({
    https: 'http://other.test',
  })
  const schemeless = { HTTP_PROXY: 'proxy.test:3128' }
  expect(() => loadConfig({ ...switched, ...schemeless })).toThrow(/HTTP_PROXY/)
  expect(loadConfig({ ...minimal, ...schemeless }).proxy).toBeUndefined()
})

test('an unknown field of a provider is refused, and so is a missing key', () => {
  const providers = JSON.stringify([{ name: 'a', baseUrl: 'http://127.0.0.1:1/v1', apikey: 'x' }])
  expect(() => loadConfig({ ...minimal, PURSER_PROVIDERS: providers })).toThrow(/PURSER_PROVIDERS\.0/)
})

test('a provider speaks as OpenAI does, unless it says otherwise', () => {
  const place = { baseUrl: 'http://127.0.0.1:1/v1', apiKey: 'x' }
  const providers = [
    { name: 'a', ...place },
    { name: 'b', kind: 'openrouter', maxTokensField: 'max_completion_tokens', ...place },
    { name: 'c', kind: 'anthropic', promptCache: true, ...place },
  ]
  expect(loadConfig({ ...minimal, PURSER_PROVIDERS: JSON.stringify(providers) }).providers).toEqual([
    { ...providers[0], kind: 'openai' },
    providers[1],
    providers[2],
  ])
})

test.each([
  ['kind', { kind: 'openapi' }],
  ['baseUrl', { baseUrl: 'ftp://127.0.0.1/v1' }],
  ['apiKey', { apiKey: 'two words' }],
  ['apiKey', { apiKey: 'a line\n' }],
  ['maxTokensField', { maxTokensField: 'maxTokens' }],
  ['maxTokensField', { kind: 'anthropic', maxTokensField: 'max_tokens' }],
  ['promptCache', { promptCache: true }],
])('a provider whose %s is wrong (%j) is refused by that name', (field, change) => {
  const provider = { name: 'a', baseUrl: 'http://127.0.0.1:1/v1', apiKey: 'x', ...change }
  expect(() => loadConfig({ ...minimal, PURSER_PROVIDERS: JSON.stringify([provider]) })).toThrow(
    `PURSER_PROVIDERS.0.${field}`,
  )
})

test('two providers of one name are refused, beside all that is wrong with them', () => {
  const provider = { name: 'a', baseUrl: 'http://127.0.0.1:1/v1', apiKey: 'x' }
  const load = (...providers: readonly object[]) =>
    loadConfig({ ...minimal, PURSER_PROVIDERS: JSON.stringify(providers) })
  expect(() => load(provider, provider)).toThrow('PURSER_PROVIDERS.1.name')
  expect(() => load({ ...provider, kind: 'x' }, { ...provider, apiKey: '' })).toThrow(
    /(?=[\s\S]*PURSER_PROVIDERS\.0\.kind)(?=[\s\S]*PURSER_PROVIDERS\.1\.apiKey)/,
  )
})
