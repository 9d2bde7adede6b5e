import { randomBytes, randomInt } from 'node:crypto'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { reportSchema, type Report } from '#contracts/report.ts'
import { parseDecimal } from '#domain/money.ts'
import { useScratchFolder } from '../support/scratch.ts'
import { checkout, startCommand } from './command.ts'

const documentSchema = z.strictObject({
  verify: z.strictObject({ ok: z.boolean() }),
  runs: z.array(
    z.strictObject({
      name: z.string(),
      state: z.string(),
      report: reportSchema,
      transferTotal: z.object({
        total: z.string(),
        byBalance: z.array(z.object({ balanceClass: z.string(), currency: z.string(), amount: z.string() })),
      }),
      providerAnswersByCallKey: z.record(z.string(), z.int()),
    }),
  ),
})

const loggedRequestSchema = z.object({
  seq: z.int(),
  callKey: z.string(),
  attempt: z.int(),
  begun: z.boolean(),
  billed: z.string(),
})

type Logged = z.infer<typeof loggedRequestSchema>

function nano(text: string): bigint {
  const parsed = parseDecimal(text)
  if (!parsed.ok) throw new Error(`${text} is not an amount`)
  return parsed.nano
}

function sum(amounts: readonly string[]): bigint {
  return amounts.reduce((total, amount) => total + nano(amount), 0n)
}

/** Documents with a fact that nobody can know but from one of them, among others about the same names. */
async function writeDocuments(folder: string) {
  const [town, other] = [randomBytes(3), randomBytes(3)].map((bytes) => `Q${bytes.toString('hex')}`)
  const year = String(randomInt(1500, 1900))
  const fact = `The lighthouse of ${town} was lit for the first time in ${year} by the keeper Ansa Brill.`
  const documents = {
    'towns/lighthouse.md': `# Lighthouses\n\nOf all towers on this coast, few are older.\n\n${fact}\n`,
    'towns/market.md': `# Markets\n\nThe market of ${town} is held on Thursdays, when boats land at high tide.\n`,
    'towns/bridge.txt': `The bridge of ${other} has ${randomInt(3, 12)} arches, and was paid for by the millers.\n`,
    'people.md': `# People\n\nThe mayor of ${other} keeps bees. Ansa Brill wrote letters to ${other} every winter.\n`,
  }
  for (const [path, text] of Object.entries(documents)) {
    await mkdir(join(folder, path, '..'), { recursive: true })
    await writeFile(join(folder, path), text)
  }
  return {
    year,
    fact,
    source: 'towns/lighthouse.md',
    question: `When was the lighthouse of ${town} lit for the first time?`,
  }
}

/** The provider's own log; the last line about a request counts. */
async function readProviderLog(dataDir: string): Promise<readonly Logged[]> {
  const text = await readFile(join(dataDir, 'logs/sandbox-requests.jsonl'), 'utf8')
  const lines = text.trimEnd().split('\n')
  const requests = lines
    .map((line) => loggedRequestSchema.safeParse(JSON.parse(line)))
    .flatMap(({ data }) => data ?? [])
  return [...new Map(requests.map((request) => [request.seq, request])).values()]
}

/** The report's total is that of its ledger entries, and that of the provider's bill plus what is labelled otherwise. */
function expectSameTotals(report: Report, transferTotal: string, requests: readonly Logged[]): void {
  const total = sum(report.totals.map(({ spent }) => spent.amount))
  expect(total).toBe(nano(transferTotal))
  const attempts = report.calls.flatMap(({ id, attempts: tries }) => tries.map((attempt) => ({ id, ...attempt })))
  const charged = attempts.filter(({ certainty }) => certainty !== null)
  const isLabelledBilled = (request: Logged): boolean =>
    charged.some(
      (each) => each.id === request.callKey && each.number === request.attempt && each.certainty === 'billed',
    )
  const billed = sum(requests.filter(isLabelledBilled).map((request) => request.billed))
  const labelledOtherwise = sum(
    charged.filter(({ certainty }) => certainty !== 'billed').map((each) => each.charged.amount),
  )
  expect(billed + labelledOtherwise).toBe(total)
  // Nothing the provider has begun is missing from the report, and what nobody could know is not booked too low.
  const begun = requests.filter((request) => request.begun).map(({ callKey, attempt }) => `${callKey}:${attempt}`)
  expect(begun.toSorted()).toEqual(charged.map(({ id, number }) => `${id}:${number}`).toSorted())
  expect(total).toBeGreaterThanOrEqual(sum(requests.map((request) => request.billed)))
}

test(
  'the demo on random facts proves what it says: totals, states, repeats and the cited passage',
  { timeout: 300_000 },
  async () => {
    const dataDir = await useScratchFolder()
    const sources = await useScratchFolder()
    const { question, year, fact, source } = await writeDocuments(sources)
    const end = await startCommand(
      ['npm', 'run', '-s', 'demo', '--', '--json', '--sources', sources, '--question', question],
      { cwd: checkout, env: { PURSER_DATA_DIR: dataDir } },
    ).ended
    expect(end.code, end.err).toBe(0)
    const document = documentSchema.parse(JSON.parse(end.out))
    const log = await readProviderLog(dataDir)

    expect(document.verify.ok).toBe(true)
    expect(document.runs.map(({ name, state }) => `${name}: ${state}`)).toEqual([
      'plain: completed',
      'paused: completed',
      'cancelled: cancelled',
      'killed: completed',
      'killed-after-answer: completed',
    ])
    for (const { report, transferTotal } of document.runs) {
      const keys = new Set(report.calls.map(({ id }) => id))
      expectSameTotals(
        report,
        transferTotal.total,
        log.filter(({ callKey }) => keys.has(callKey)),
      )
    }
    const [plain, paused, cancelled, killed, killedAfterAnswer] = document.runs
    const answers = (run: (typeof document.runs)[number] | undefined) =>
      Object.values(run?.providerAnswersByCallKey ?? {}).toSorted((left, right) => left - right)
    // A busy route is left alone by all calls for as long as it asked: how many try it depends on their timing.
    const counts = plain?.report.counts
    expect(counts).toMatchObject({ calls: 6, refusals: 5, lost: 0 })
    expect(counts?.retries).toBeGreaterThanOrEqual(1)
    expect(counts?.fallbacks).toBeGreaterThanOrEqual(6)
    expect(plain?.transferTotal.byBalance.map(({ balanceClass }) => balanceClass).toSorted()).toEqual([
      'credit',
      'direct',
    ])
    expect(answers(paused)).toEqual([1, 1, 1, 1, 1, 1])
    expect(cancelled?.report).toMatchObject({ reason: 'money_exhausted', stop: { limit: 'direct pocket' } })
    expect(answers(killed)).toEqual([1, 1, 1, 1, 1, 2])
    expect(answers(killedAfterAnswer)).toEqual([1, 1, 1, 1, 1, 1])
    const [lost, ...others] =
      killed?.report.calls.flatMap(({ attempts }) => attempts.filter(({ outcome }) => outcome === 'lost')) ?? []
    expect(lost).toMatchObject({ certainty: 'unknown', use: 'wasted' })
    expect(others).toEqual([])
    for (const text of [year, fact.slice(0, 40), `[1] ${source}`]) expect(end.err).toContain(text)
  },
)
