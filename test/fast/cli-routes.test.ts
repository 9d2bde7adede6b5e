import type { RouteHealthView } from '#contracts/api-route.ts'
import { sandboxCatalog } from '#local/catalog.ts'
import { useScratchFolder } from '#test/support/scratch.ts'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { UsageError } from '../../src/cli/arguments.ts'
import { catalog } from '../../src/cli/catalog.ts'
import { describeEvent } from '../../src/cli/event-line.ts'
import { routes, rowOf } from '../../src/cli/routes.ts'
import type { Screen } from '../../src/cli/screen.ts'

function listen() {
  const screenOf = (lines: string[]): Screen => ({
    isTerminal: false,
    width: 100,
    line: (text = '') => void lines.push(text),
    paint: (_, text) => text,
  })
  const [out, err]: readonly [string[], string[]] = [[], []]
  return { out, err, outputs: { out: screenOf(out), err: screenOf(err) } }
}

async function fileWith(text: string): Promise<string> {
  const file = join(await useScratchFolder(), 'catalog.json')
  await writeFile(file, text)
  return file
}

test('a catalog is checked without an API: all that is wrong is named, and the exit code says so', async () => {
  const heard = listen()
  const good = await fileWith(JSON.stringify(sandboxCatalog))
  expect(await catalog(['check', good], heard.outputs)).toBe(0)
  expect(heard.out).toEqual([`${good} is a catalog with 2 models and 3 prices.`])
  const [model] = sandboxCatalog.models
  const bad = await fileWith(JSON.stringify({ models: [model, model], prices: [{}] }))
  expect(await catalog(['check', bad], heard.outputs)).toBe(1)
  expect(heard.err).toContain('  models.1: the model research stands twice')
  expect(heard.err.some((line) => line.startsWith('  prices.0.provider: '))).toBe(true)
})

test('a file that is no JSON, or is not there, and a wrong command are said in a sentence', async () => {
  const { outputs } = listen()
  const broken = await fileWith('{')
  await expect(catalog(['check', broken], outputs)).rejects.toThrow(`${broken} is not JSON`)
  await expect(catalog(['check', '/nowhere/catalog.json'], outputs)).rejects.toThrow('cannot be read')
  for (const args of [[], ['check'], ['drop', 'x'], ['show', 'newest'], ['check', 'a', 'b']]) {
    await expect(catalog(args, outputs)).rejects.toThrow(UsageError)
  }
  for (const args of [['reset'], ['reset', 'p', 'm'], ['reset', 'p', 'm', 'all'], ['close']]) {
    await expect(routes(args, outputs)).rejects.toThrow(UsageError)
  }
})

test('a route is a line with its circuit, its last failure, what is used of its limits, and its distrust', () => {
  const at = '2026-11-01T00:00:00.000Z'
  const well: RouteHealthView = {
    provider: 'p',
    upstreamModel: 'm',
    routes: [],
    circuit: { state: 'closed', since: null, until: null, failures: 0 },
    lastFailure: null,
    room: { requestsPerMinute: null, tokensPerMinute: null, concurrency: null },
    distrust: null,
    lastReset: null,
  }
  expect(rowOf(well)).toEqual(['p m', 'closed', '0', '–', '–', '–'])
  const ill: RouteHealthView = {
    ...well,
    circuit: { state: 'open', since: at, until: at, failures: 5 },
    lastFailure: { outcome: 'quota_gone', message: null, at },
    room: {
      ...well.room,
      requestsPerMinute: { limit: 10, used: 3, leased: 2 },
      concurrency: { limit: 4, used: 4, leased: 0 },
    },
    distrust: { factor: '1.501000', since: at },
  }
  expect(rowOf(ill)).toEqual([
    'p m',
    `open until ${at}`,
    '5',
    `quota gone at ${at}`,
    '3 of 10 requests, 4 of 4 at once',
    `× 1.501000 since ${at}`,
  ])
})

test('distrust is a line of the run that says what was held and what was billed', () => {
  const usd = (amount: string) => ({ amount, currency: 'USD' })
  const data = { route: 'steady', held: usd('0.001000'), charged: usd('0.001501') }
  const event = { id: '1-1', kind: 'route.distrusted', at: '2026-11-01T00:00:00.000Z', data }
  expect(describeEvent(event, 'read/0')?.text).toBe('steady    distrusted     billed 0.001501 where 0.001000 was held')
})
