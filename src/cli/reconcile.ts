import { readArguments, UsageError } from './arguments.ts'
import { connectToApi } from './connection.ts'
import type { Outputs } from './screen.ts'

const USAGE = `Usage: purser reconcile [--json]
       purser reconcile --void CALL_ID:ATTEMPT --because TEXT

Resolves, now, what dead processes left open; every process does so by itself every few seconds. With --void, takes the
cost of one lost attempt back to zero, because you know that the provider did not bill it; the journal keeps both.
Needs an operator key.`

export async function reconcile(args: readonly string[], { out }: Outputs): Promise<number> {
  const { values } = readArguments(args, {
    options: {
      void: { type: 'string' },
      because: { type: 'string' },
      json: { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
    },
    usage: USAGE,
  })
  if (values.help) {
    out.line(USAGE)
    return 0
  }
  const lines = values.void === undefined ? await resolveNow() : await voidOne(values.void, values.because)
  if (values.json) out.line(JSON.stringify(lines.body, undefined, 2))
  else for (const line of lines.text) out.line(line)
  return 0
}

interface Said {
  readonly body: unknown
  readonly text: readonly string[]
}

async function resolveNow(): Promise<Said> {
  const api = await connectToApi(process.env)
  const body = await api.post('/reconciliations', { body: {} })
  const text = [
    ...body.resolved.map(
      ({ callId, attempt, held, charged, certainty }) =>
        `${callId}:${attempt}  ${charged.amount} of ${held.amount} ${held.currency} booked as ${certainty ?? 'void'}`,
    ),
    ...body.unresolved.map(({ callId, attempt, message }) => `${callId}:${attempt}  stays open: ${message}`),
  ]
  return { body, text: text.length > 0 ? text : ['Nothing was left open by a dead process.'] }
}

async function voidOne(name: string, because: string | undefined): Promise<Said> {
  const [callId, attempt] = name.split(':')
  if (!callId || !attempt || !/^\d+$/.test(attempt)) {
    throw new UsageError(`"${name}" names no attempt: give CALL_ID:ATTEMPT, as the report shows them.`, USAGE)
  }
  if (because === undefined) throw new UsageError('say --because how you know it.', USAGE)
  const api = await connectToApi(process.env)
  const body = await api.post('/calls/{id}/attempts/{number}/void', {
    params: { path: { id: callId, number: Number(attempt) } },
    body: { reason: because },
  })
  return { body, text: [body.replayed ? 'It was voided before.' : `Attempt ${attempt} costs nothing now.`] }
}
