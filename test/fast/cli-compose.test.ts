import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

const read = (path: string): string => readFileSync(fileURLToPath(new URL(`../../${path}`, import.meta.url)), 'utf8')

const compose = read('docker-compose.yml')
/** What the processes read; the words stand at the beginning of a line of its schemas. */
const known = new Set(Array.from(read('src/config.ts').matchAll(/^ {2}([A-Z][A-Z_]+):/gm), ([, name = '']) => name))

test('the compose file sets only variables that are read', () => {
  const set = Array.from(
    compose.matchAll(/^ +(PURSER_\w+|TEMPORAL_(?:ADDRESS|NAMESPACE)): /gm),
    ([, name = '']) => name,
  )
  expect(set.length).toBeGreaterThan(5)
  expect(set.filter((name) => !known.has(name))).toEqual([])
})

test('the compose file has no default for a secret, and says of each one what it is', () => {
  const variables = Array.from(compose.matchAll(/\$\{(\w+)([^}]*)\}/g), ([, name = '', rest = '']) => ({ name, rest }))
  expect(variables.filter(({ rest }) => rest !== '' && !rest.startsWith(':?'))).toEqual([])
  const explained = new Set(variables.filter(({ rest }) => rest.startsWith(':?')).map(({ name }) => name))
  expect(variables.filter(({ name }) => !explained.has(name))).toEqual([])
})

test('the compose file publishes ports on this machine only', () => {
  const published = Array.from(compose.matchAll(/^ +- ([\d.:]+:\d+)$/gm), ([, port = '']) => port)
  expect(published).toEqual(['127.0.0.1:8080:8080', '127.0.0.1:8233:8080'])
})

test('the operations manual lists every variable that is read', () => {
  const manual = read('docs/operations.md')
  expect([...known].filter((name) => !manual.includes(`\`${name}\``))).toEqual([])
})
