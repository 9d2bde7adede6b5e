import { RESETTABLE, type RouteHealthView } from '#contracts/api-route.ts'
import { readArguments, UsageError } from './arguments.ts'
import { connectToApi } from './connection.ts'
import { inWords } from './event-line.ts'
import { printTable } from './print-table.ts'
import type { Outputs } from './screen.ts'
import { NOTHING } from './text-table.ts'

const USAGE = `Usage: purser routes [--json]
       purser routes reset PROVIDER UPSTREAM_MODEL circuit|distrust

Shows each upstream model of the catalog: its circuit, its last failure, the room that its limits leave, and whether it is
distrusted. With reset, closes a circuit or trusts a route again; it is written down who did it. Needs an operator key.`

export async function routes(args: readonly string[], outputs: Outputs): Promise<number> {
  const { values, positionals } = readArguments(args, {
    options: { json: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } },
    usage: USAGE,
    positionals: 4,
  })
  if (values.help) {
    outputs.out.line(USAGE)
    return 0
  }
  const [command, ...rest] = positionals
  if (command === undefined) return show(outputs, values.json === true)
  if (command !== 'reset') throw new UsageError(`"${command}" is not expected here.`, USAGE)
  return reset(outputs, rest)
}

async function show({ out }: Outputs, isJson: boolean): Promise<number> {
  const api = await connectToApi(process.env)
  const list = await api.get('/routes')
  if (isJson) {
    out.line(JSON.stringify(list, undefined, 2))
    return 0
  }
  out.line(`Catalog version ${list.catalogVersion}`)
  printTable(
    out,
    [
      { title: 'upstream model' },
      { title: 'circuit' },
      { title: 'failures', align: 'right' },
      { title: 'last failure' },
      { title: 'used this minute' },
      { title: 'holds' },
    ],
    list.routes.map(rowOf),
  )
  return 0
}

/** A route as cells of the table. */
export function rowOf({ provider, upstreamModel, circuit, lastFailure, room, distrust }: RouteHealthView): string[] {
  const until = circuit.until === null || circuit.state === 'half_open' ? '' : ` until ${circuit.until}`
  const rooms = [
    ['requests', room.requestsPerMinute],
    ['tokens', room.tokensPerMinute],
    ['at once', room.concurrency],
  ] as const
  const used = rooms.flatMap(([name, each]) => (each ? [`${each.used} of ${each.limit} ${name}`] : []))
  return [
    `${provider} ${upstreamModel}`,
    `${inWords(circuit.state)}${until}`,
    String(circuit.failures),
    lastFailure ? `${inWords(lastFailure.outcome)} at ${lastFailure.at}` : NOTHING,
    used.join(', ') || NOTHING,
    distrust ? `× ${distrust.factor} since ${distrust.since}` : NOTHING,
  ]
}

async function reset({ out }: Outputs, [provider, upstreamModel, what]: readonly string[]): Promise<number> {
  const known = RESETTABLE.find((each) => each === what)
  if (provider === undefined || upstreamModel === undefined || !known) {
    throw new UsageError('say which: PROVIDER UPSTREAM_MODEL, and circuit or distrust.', USAGE)
  }
  const api = await connectToApi(process.env)
  const body = { provider, upstreamModel, what: known }
  const answer = await api.post('/routes/reset', { body })
  const done = known === 'circuit' ? 'The circuit is closed.' : 'The route is trusted again.'
  out.line(answer.isChanged ? done : 'There was nothing to reset.')
  return 0
}
