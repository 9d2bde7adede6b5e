import { stat } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import type { RunView } from '#contracts/api-run.ts'
import { collectFolder, collectInstalled } from '#tools/sources.ts'
import type { PurserClient } from '#client/purser-client.ts'
import { connectToApi } from './connection.ts'
import { uploadCorpus } from './corpus-upload.ts'
import { describeEvent, formatEventLine } from './event-line.ts'
import { printOutput } from './print-answer.ts'
import { printPlan } from './print-plan.ts'
import { waitsFor } from './paused-run.ts'
import { printReport } from './print-report.ts'
import type { Pockets } from './order-values.ts'
import { readOrder, USAGE, type Order } from './run-order.ts'
import { readJson } from './json-file.ts'
import { followRun } from './run-progress.ts'
import type { Outputs, Screen } from './screen.ts'

const INSTALLED = fileURLToPath(new URL('../../node_modules', import.meta.url))
const EXIT_PAUSED = 3

export async function run(args: readonly string[], outputs: Outputs): Promise<number> {
  const order = readOrder(args)
  if (order === 'help') {
    outputs.out.line(USAGE)
    return 0
  }
  const api = await connectToApi(process.env)
  await checkNames(api, order)
  const progress = order.isJson ? outputs.err : outputs.out
  const { agent, model, onExhausted, envelope, choices } = order
  const input = await provideInput(api, order, progress)
  const request = { agent, model, onExhausted, input, envelope, ...choices }
  if (order.isDryRun) return dryRun(api, request, { order, outputs })
  const started = await api.startRun({ body: request })
  progress.line(`Run ${started.id}, envelope ${describePockets(envelope.pockets)}; when it is empty: ${onExhausted}`)
  const ended = await followToEnd(api, started, progress)
  return printEnd(api, ended, { order, outputs })
}

async function dryRun(
  api: PurserClient,
  request: object,
  { order, outputs }: { readonly order: Order; readonly outputs: Outputs },
): Promise<number> {
  const plan = await api.planRun(request)
  if (order.isJson) outputs.out.line(JSON.stringify(plan, undefined, 2))
  else printPlan(outputs.out, plan)
  return 0
}

/** The API would say so too, but only after all documents were indexed. */
async function checkNames(api: PurserClient, { agent, model }: Order): Promise<void> {
  const { agents } = await api.get('/agents')
  const { models } = await api.get('/models')
  const nameAll = (named: readonly { readonly name: string }[]): string => named.map(({ name }) => name).join(', ')
  if (!agents.some(({ name }) => name === agent))
    throw new Error(`There is no agent ${agent}. Agents: ${nameAll(agents)}.`)
  if (!models.some(({ name }) => name === model))
    throw new Error(`There is no catalog model ${model}. Models: ${nameAll(models)}.`)
}

async function provideInput(api: PurserClient, order: Order, progress: Screen): Promise<unknown> {
  const { ask } = order
  if ('question' in ask) return { question: ask.question, corpusId: await provideDocuments(api, order, progress) }
  if (ask.input.startsWith('@')) return readJson(ask.input.slice(1))
  try {
    return JSON.parse(ask.input)
  } catch (cause) {
    throw new Error(`--input is not JSON: ${cause instanceof Error ? cause.message : String(cause)}`, { cause })
  }
}

async function provideDocuments(api: PurserClient, { sources }: Order, progress: Screen): Promise<string> {
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
async function followToEnd(api: PurserClient, started: RunView, progress: Screen): Promise<RunView> {
  const startMs = performance.now()
  const cancel = (): void => {
    progress.line('Cancelling the run.')
    const cancelled = api.post('/runs/{id}/cancel', {
      params: { path: { id: started.id } },
      body: { reason: 'Ctrl-C' },
    })
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
  api: PurserClient,
  ended: RunView,
  { order, outputs }: { readonly order: Order; readonly outputs: Outputs },
): Promise<number> {
  const { out } = outputs
  const report = await api.get('/runs/{id}/report', { params: { path: { id: ended.id } } })
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
  outputs.err.line(waitsFor(ended))
  return EXIT_PAUSED
}

function describePockets(pockets: Pockets): string {
  return pockets.map(({ balanceClass, amount }) => `${amount.amount} ${amount.currency} ${balanceClass}`).join(' + ')
}
