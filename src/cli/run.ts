import { stat } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { agentListSchema, modelListSchema } from '#contracts/api-catalog.ts'
import { runSchema, type RunView } from '#contracts/api-run.ts'
import type { Pockets } from '#contracts/api-money.ts'
import { BALANCE_CLASSES, ON_EXHAUSTED, type OnExhausted } from '#contracts/names.ts'
import { reportSchema } from '#contracts/report.ts'
import { parseDecimal } from '#domain/money.ts'
import { collectFolder, collectInstalled } from '#tools/sources.ts'
import type { ApiClient } from './api-client.ts'
import { readArguments, UsageError } from './arguments.ts'
import { connectToApi } from './connection.ts'
import { uploadCorpus } from './corpus-upload.ts'
import { describeEvent, formatEventLine } from './event-line.ts'
import { printOutput } from './print-answer.ts'
import { printReport } from './print-report.ts'
import { followRun } from './run-progress.ts'
import type { Outputs, Screen } from './screen.ts'

const USAGE = `Usage: purser run AGENT --question TEXT [OPTIONS]

  --question TEXT              what to find out
  --sources FOLDER             documents to answer from (*.md, *.mdx, *.txt); without it the documentation of the
                               packages that are installed in this checkout
  --model NAME                 catalog model (default: research)
  --budget AMOUNT              the envelope, in USD of the direct balance (default: 0.05)
  --direct AMOUNT --credit AMOUNT
                               the same, for each balance
  --on-exhausted pause|cancel  what to do when the envelope is empty (default: cancel)
  --clamp TOKENS               ask for less output, down to so many tokens, where the envelope cannot pay the worst case
  --reuse-answers SECONDS      take the project's stored answers to the same requests that are no older, at no cost, and
                               let later runs take the answers of this one
  --json                       print one JSON document: the run and its report

The only agent so far is research. Ctrl-C cancels the run. Ends with 0 when the run completed, 3 when it is paused, and
1 otherwise.`

const INSTALLED = fileURLToPath(new URL('../../node_modules', import.meta.url))
const CURRENCY = 'USD'
const DEFAULT_BUDGET = '0.05'
const EXIT_PAUSED = 3

interface Order {
  readonly agent: string
  readonly question: string
  readonly sources: string | undefined
  readonly model: string
  readonly pockets: Pockets
  readonly onExhausted: OnExhausted
  readonly choices: Readonly<Record<string, unknown>>
  readonly isJson: boolean
}

export async function run(args: readonly string[], outputs: Outputs): Promise<number> {
  const order = readOrder(args)
  if (order === 'help') {
    outputs.out.line(USAGE)
    return 0
  }
  const api = await connectToApi(process.env)
  await checkNames(api, order)
  const progress = order.isJson ? outputs.err : outputs.out
  const corpusId = await provideDocuments(api, order, progress)
  const { agent, model, onExhausted, question, pockets, choices } = order
  const { body: started } = await api.post('/runs', {
    body: { agent, model, onExhausted, input: { question, corpusId }, envelope: { pockets }, ...choices },
    schema: runSchema,
  })
  progress.line(`Run ${started.id}, envelope ${describePockets(pockets)}; when it is empty: ${onExhausted}`)
  const ended = await followToEnd(api, started, progress)
  return printEnd(api, ended, { order, outputs })
}

function readOrder(args: readonly string[]): Order | 'help' {
  const text = { type: 'string' } as const
  const { values, positionals } = readArguments(args, {
    options: {
      question: text,
      sources: text,
      model: text,
      budget: text,
      direct: text,
      credit: text,
      'on-exhausted': text,
      clamp: text,
      'reuse-answers': text,
      json: { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
    },
    usage: USAGE,
    positionals: 1,
  })
  if (values.help) return 'help'
  const [agent] = positionals
  if (agent === undefined) throw new UsageError('the name of an agent is missing, such as research.', USAGE)
  if (!values.question?.trim()) throw new UsageError('--question is missing.', USAGE)
  const onExhausted = ON_EXHAUSTED.find((choice) => choice === (values['on-exhausted'] ?? 'cancel'))
  if (!onExhausted) throw new UsageError(`--on-exhausted is one of ${ON_EXHAUSTED.join(', ')}.`, USAGE)
  return {
    agent,
    onExhausted,
    question: values.question,
    sources: values.sources,
    model: values.model ?? 'research',
    pockets: readPockets(values),
    choices: readChoices(values),
    isJson: values.json === true,
  }
}

function readChoices(values: { readonly clamp?: string; readonly 'reuse-answers'?: string }) {
  const floorTokens = readCount('--clamp', values.clamp)
  const maxAgeSeconds = readCount('--reuse-answers', values['reuse-answers'])
  return {
    ...(floorTokens !== undefined && { tight: { policy: 'clamp', floorTokens } }),
    ...(maxAgeSeconds !== undefined && { reuse: { maxAgeSeconds } }),
  }
}

function readCount(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new UsageError(`${option} is a whole number, such as 200.`, USAGE)
  return Number(text)
}

function readPockets(values: {
  readonly budget?: string
  readonly direct?: string
  readonly credit?: string
}): Pockets {
  const { budget, ...perBalance } = values
  if (budget !== undefined && (perBalance.direct ?? perBalance.credit) !== undefined) {
    throw new UsageError('give either --budget, or --direct and --credit.', USAGE)
  }
  const isPlain = perBalance.direct === undefined && perBalance.credit === undefined
  const amounts = isPlain ? { direct: budget ?? DEFAULT_BUDGET } : perBalance
  return BALANCE_CLASSES.flatMap((balanceClass) => {
    const amount = balanceClass in amounts ? Reflect.get(amounts, balanceClass) : undefined
    if (typeof amount !== 'string') return []
    const parsed = parseDecimal(amount)
    if (!parsed.ok || parsed.nano === 0n) {
      throw new UsageError(
        `${amount} is not an amount: write a decimal with at most nine decimals, such as 0.05.`,
        USAGE,
      )
    }
    return [{ balanceClass, amount: { amount, currency: CURRENCY } }]
  })
}

/** The API would say so too, but only after all documents were indexed. */
async function checkNames(api: ApiClient, { agent, model }: Order): Promise<void> {
  const { agents } = await api.get('/agents', agentListSchema)
  const { models } = await api.get('/models', modelListSchema)
  const nameAll = (named: readonly { readonly name: string }[]): string => named.map(({ name }) => name).join(', ')
  if (!agents.some(({ name }) => name === agent))
    throw new Error(`There is no agent ${agent}. Agents: ${nameAll(agents)}.`)
  if (!models.some(({ name }) => name === model))
    throw new Error(`There is no catalog model ${model}. Models: ${nameAll(models)}.`)
}

async function provideDocuments(api: ApiClient, { sources }: Order, progress: Screen): Promise<string> {
  if (sources !== undefined && !(await isFolder(sources))) throw new Error(`--sources is not a folder: ${sources}`)
  const { documents } = sources === undefined ? await collectInstalled(INSTALLED) : await collectFolder(sources)
  if (documents.length === 0) throw new Error(`There is no *.md, *.mdx or *.txt file in ${sources ?? INSTALLED}.`)
  const { corpusId, isKnown } = await uploadCorpus(api, documents, {
    onUpload: ({ done, total }) =>
      progress.line(`Indexing ${documents.length} documents: part ${done + 1} of ${total}`),
  })
  if (isKnown) progress.line(`${documents.length} documents, indexed before`)
  return corpusId
}

/** Ctrl-C cancels the run, which then ends by itself; a second one leaves at once. */
async function followToEnd(api: ApiClient, started: RunView, progress: Screen): Promise<RunView> {
  const startMs = performance.now()
  const cancel = (): void => {
    progress.line('Cancelling the run.')
    const cancelled = api.post(`/runs/${started.id}/cancel`, { body: { reason: 'Ctrl-C' }, schema: runSchema })
    cancelled.catch((error: unknown) => progress.line(String(error)))
  }
  process.once('SIGINT', cancel)
  try {
    const { run } = await followRun(api, started.id, {
      stopsAtPause: true,
      onEvent: (event, path) => {
        const line = describeEvent(event, path)
        if (line) progress.line(formatEventLine(line, performance.now() - startMs))
      },
    })
    return run
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error)
    throw new Error(`The run goes on unseen; look with: purser report ${started.id}. ${message}`, { cause: error })
  } finally {
    process.off('SIGINT', cancel)
  }
}

async function isFolder(path: string): Promise<boolean> {
  return path !== '' && (await stat(path).catch(() => undefined))?.isDirectory() === true
}

async function printEnd(
  api: ApiClient,
  ended: RunView,
  { order, outputs }: { readonly order: Order; readonly outputs: Outputs },
): Promise<number> {
  const { out } = outputs
  const report = await api.get(`/runs/${ended.id}/report`, reportSchema)
  if (order.isJson) {
    out.line(JSON.stringify({ run: ended, report }, undefined, 2))
  } else {
    out.line(`\n${out.paint('bold', 'Answer')}`)
    printOutput(out, ended.output)
    out.line(`\n${out.paint('bold', 'Cost report')}`)
    printReport(out, report)
    out.line(`\nRun ${ended.id}: ${ended.state}${ended.detail === null ? '' : `, ${ended.detail}`}`)
  }
  if (ended.state !== 'paused') return ended.state === 'completed' ? 0 : 1
  outputs.err.line(
    `The run waits for money: POST ${api.url}/api/v1/runs/${ended.id}/top-up, then purser report ${ended.id}`,
  )
  return EXIT_PAUSED
}

function describePockets(pockets: Pockets): string {
  return pockets.map(({ balanceClass, amount }) => `${amount.amount} ${amount.currency} ${balanceClass}`).join(' + ')
}
