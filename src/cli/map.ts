import { readFile } from 'node:fs/promises'
import { basename, extname } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { DatasetView } from '#contracts/api-dataset.ts'
import type { RunView } from '#contracts/api-run.ts'
import { parseDecimal } from '#domain/money.ts'
import { isTerminal } from '#domain/run-states.ts'
import { ApiProblem } from '#client/api-problem.ts'
import type { PurserClient } from '#client/purser-client.ts'
import { readArguments, UsageError } from './arguments.ts'
import { connectToApi } from './connection.ts'
import { checkWritable, printDownload, saveDownload } from './download.ts'
import { waitsFor } from './paused-run.ts'
import { rowFormatOf, type RowFormat } from './rows.ts'
import type { Outputs, Screen } from './screen.ts'

const USAGE = `Usage: purser map FILE --prompt TEXT [OPTIONS]

Asks one prompt about each row of a file, and writes the rows with their answers, errors and costs. FILE is CSV with a
line of column names (*.csv), or JSON lines (*.jsonl, *.ndjson).

  --prompt TEXT                {{column}} is the row's value, {{row}} the whole row as JSON
  --system TEXT                instructions, the same or with {{column}} as well
  --schema FILE                a JSON Schema: each answer is an object of it, and each of its properties a column
  --max-tokens N               most output tokens of a row (default: 500)
  --out FILE                   where to write, as its ending says (*.csv, *.jsonl, *.json); without it, to standard output
                               in the format of FILE
  --model NAME                 catalog model (default: research)
  --budget AMOUNT              the envelope, in USD of the direct balance (default: 0.05)
  --on-exhausted pause|cancel  what to do when the envelope is empty (default: cancel)
  --concurrency N              most rows at once, up to 64 (default: 16)

Ctrl-C cancels the run; what is done by then is written. Ends with 0 when every row has an answer, 3 when the run is
paused, and 1 otherwise; purser rows RUN_ID writes the rows again.`

/** What a downgraded run goes on with is said to purser run. */
const CHOICES = ['pause', 'cancel'] as const
const DEFAULT_BUDGET = '0.05'
const EXIT_PAUSED = 3
const LOOK_MS = 500
/** A line each so many looks, where nothing can be overwritten. */
const LOOKS_PER_LINE = 20

const TYPES: Readonly<Record<string, { readonly type: string; readonly format: 'csv' | 'jsonl' }>> = Object.freeze({
  '.csv': { type: 'text/csv', format: 'csv' },
  '.jsonl': { type: 'application/jsonl', format: 'jsonl' },
  '.ndjson': { type: 'application/x-ndjson', format: 'jsonl' },
})

interface Order {
  readonly file: string
  readonly type: string
  readonly format: RowFormat
  readonly out: string | undefined
  readonly model: string
  readonly budget: string
  readonly onExhausted: (typeof CHOICES)[number]
  readonly input: Readonly<Record<string, unknown>>
}

export async function map(args: readonly string[], { out, err }: Outputs): Promise<number> {
  const order = await readOrder(args)
  if (order === 'help') {
    out.line(USAGE)
    return 0
  }
  const content = await readFile(order.file)
  // Before anything is paid for.
  if (order.out !== undefined) await checkWritable(order.out)
  const api = await connectToApi(process.env)
  const dataset = await upload(api, order, content)
  err.line(`${dataset.rows} rows of ${dataset.columns.length} columns: dataset ${dataset.id}`)
  const started = await api.startRun({
    body: {
      agent: 'map',
      model: order.model,
      onExhausted: order.onExhausted,
      input: { ...order.input, datasetId: dataset.id },
      envelope: { pockets: [{ balanceClass: 'direct', amount: { amount: order.budget, currency: 'USD' } }] },
    },
  })
  err.line(`Run ${started.id}, envelope ${order.budget} USD; when it is empty: ${order.onExhausted}`)
  const ended = await follow(api, started.id, err)
  return deliver(api, ended, { order, err })
}

async function readOrder(args: readonly string[]): Promise<Order | 'help'> {
  const text = { type: 'string' } as const
  const { values, positionals } = readArguments(args, {
    options: {
      prompt: text,
      system: text,
      schema: text,
      'max-tokens': { ...text, default: '500' },
      out: { ...text, short: 'o' },
      model: { ...text, default: 'research' },
      budget: { ...text, default: DEFAULT_BUDGET },
      'on-exhausted': { ...text, default: 'cancel' },
      concurrency: { ...text, default: '16' },
      help: { type: 'boolean', short: 'h' },
    },
    usage: USAGE,
    positionals: 1,
  })
  if (values.help) return 'help'
  const [file] = positionals
  if (file === undefined) throw new UsageError('the file of rows is missing.', USAGE)
  const kind = TYPES[extname(file).toLowerCase()]
  if (!kind) throw new UsageError(`${file} is neither *.csv nor *.jsonl.`, USAGE)
  if (!values.prompt?.trim()) throw new UsageError('--prompt is missing.', USAGE)
  const onExhausted = CHOICES.find((choice) => choice === values['on-exhausted'])
  if (!onExhausted) throw new UsageError(`--on-exhausted is one of ${CHOICES.join(', ')}.`, USAGE)
  const budget = parseDecimal(values.budget)
  if (!budget.ok || budget.nano === 0n) throw new UsageError(`${values.budget} is not an amount, such as 0.05.`, USAGE)
  return {
    file,
    type: kind.type,
    format: values.out === undefined ? kind.format : rowFormatOf(values.out, USAGE),
    out: values.out,
    model: values.model,
    budget: values.budget,
    onExhausted,
    input: {
      prompt: values.prompt,
      ...(values.system !== undefined && { system: values.system }),
      ...(values.schema !== undefined && { schema: await readSchema(values.schema) }),
      maxTokens: readCount('--max-tokens', values['max-tokens']),
      concurrency: readCount('--concurrency', values.concurrency),
    },
  }
}

function readCount(option: string, text: string): number {
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new UsageError(`${option} is a whole number, such as 16.`, USAGE)
  return Number(text)
}

async function readSchema(file: string): Promise<unknown> {
  try {
    const schema: unknown = JSON.parse(await readFile(file, 'utf8'))
    return schema
  } catch (error) {
    throw new UsageError(`--schema ${file}: ${error instanceof Error ? error.message : String(error)}`, USAGE)
  }
}

/** The same file under the same name is there already: it is not stored again. */
async function upload(api: PurserClient, { file, type }: Order, content: Buffer): Promise<DatasetView> {
  return api.uploadDataset(basename(file).slice(0, 200), { content, type })
}

/** Ctrl-C cancels the run, which then ends by itself; a second one leaves at once. */
async function follow(api: PurserClient, runId: string, screen: Screen): Promise<RunView> {
  const cancel = (): void => {
    screen.line('Cancelling the run.')
    const cancelled = api.post('/runs/{id}/cancel', { params: { path: { id: runId } }, body: { reason: 'Ctrl-C' } })
    cancelled.catch((error: unknown) => screen.line(String(error)))
  }
  process.once('SIGINT', cancel)
  try {
    for (let looks = 0; ; looks += 1) {
      const run = await api.get('/runs/{id}', { params: { path: { id: runId } } })
      if (isTerminal(run.state) || run.state === 'paused') return run
      if (looks % LOOKS_PER_LINE === LOOKS_PER_LINE - 1) screen.line(await progressOf(api, runId))
      await delay(LOOK_MS)
    }
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error)
    throw new Error(`The run goes on unseen; look with: purser rows ${runId}. ${message}`, { cause: error })
  } finally {
    process.off('SIGINT', cancel)
  }
}

async function progressOf(api: PurserClient, runId: string): Promise<string> {
  const counts = await countsOf(api, runId)
  if (!counts) return 'not begun yet'
  const { rows, answered, failed } = counts
  const percent = Math.floor((100 * (answered + failed)) / rows)
  return `${String(percent).padStart(3)} %  ${answered} of ${rows} rows answered${failed > 0 ? `, ${failed} failed` : ''}`
}

/** Undefined while the run has not begun. */
async function countsOf(api: PurserClient, runId: string) {
  try {
    return await api.get('/runs/{id}/row-counts', { params: { path: { id: runId } } })
  } catch (error) {
    if (error instanceof ApiProblem && error.status === 404) return undefined
    throw error
  }
}

async function deliver(
  api: PurserClient,
  ended: RunView,
  { order, err }: { readonly order: Order; readonly err: Screen },
): Promise<number> {
  const { id, state, detail } = ended
  const counts = await countsOf(api, id)
  if (counts) {
    const path = `/runs/${id}/rows?format=${order.format}`
    if (order.out === undefined) await printDownload(api, path)
    else await saveDownload(api, path, order.out)
    const spent = ended.envelope.pockets.map((pocket) => `${pocket.spent.amount} ${pocket.spent.currency}`).join(' + ')
    err.line(await progressOf(api, id))
    err.line(`${spent} spent. ${order.out === undefined ? '' : `Written to ${order.out}.`}`)
  }
  err.line(`Run ${id}: ${state}${detail === null ? '' : `, ${detail}`}`)
  if (state !== 'paused') return state === 'completed' && counts?.answered === counts?.rows ? 0 : 1
  err.line(`${waitsFor(ended)}\nWhat is done by then: purser rows ${id}`)
  return EXIT_PAUSED
}
