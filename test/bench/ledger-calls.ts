import { ledgerId } from '#calls/charge.ts'
import { storedPlan, type Plan } from '#contracts/stored.ts'
import type { PocketKey, ReserveItem, SettleItem } from '#db/hold.ts'
import { deriveId, newId, sha256 } from '#db/ids.ts'
import { json } from '#db/json.ts'
import type { Database } from '#db/schema.ts'
import { chargeOf, NO_USAGE, worstCaseOf } from '#domain/pricing.ts'
import { invariant } from '#domain/invariant.ts'
import { sql, type Kysely } from 'kysely'
import { ROUTE, type BenchEnvelope, type Tenant } from './ledger-tenant.ts'

/** An open call with what its one attempt will write. */
export interface PreparedCall {
  readonly pocket: PocketKey
  readonly hold: ReserveItem
  readonly settlement: SettleItem
}

/** A prompt of about 300 tokens, as most calls of a run that reads have at least. */
const PROMPT = 'Which of these passages answer the question, and what do they say? '.repeat(18)
const ANSWER = 'The hooks run in the order in which they were registered, and each may end the request. '.repeat(8)
const INPUT_TOKEN_BOUND = 1_400
const MAX_OUTPUT_TOKENS = 400
/** Calls written by one statement. */
const ROWS = 1_000

/** So many envelopes of the tenant, drawn at random. */
export function drawEnvelopes({ envelopes }: Tenant, count: number): readonly BenchEnvelope[] {
  return Array.from({ length: count }, () => {
    const envelope = envelopes[Math.floor(Math.random() * envelopes.length)]
    invariant(envelope, 'the tenant has envelopes')
    return envelope
  })
}

/**
 * Opens a call of each of these envelopes, as `openCall` does, but many in one statement: it is no operation of the
 * ledger, and happens outside the time.
 */
export async function openCalls(
  db: Kysely<Database>,
  tenant: Tenant,
  envelopes: readonly BenchEnvelope[],
): Promise<PreparedCall[]> {
  const calls: PreparedCall[] = []
  while (calls.length < envelopes.length) {
    const rows = envelopes.slice(calls.length, calls.length + ROWS).map(newCallOf)
    await sql`
      insert into payload (id, project_id, run_id, kind, body)
      select r.request_id, ${tenant.scope.projectId}, r.run_id, 'request', ${requestBody()}::jsonb
      from json_to_recordset(${json(rows)}::json) as r(request_id uuid, run_id uuid)`.execute(db)
    await sql`
      insert into call (id, project_id, run_id, envelope_id, api_key_id, path, digest, model, catalog_version, request_id)
      select r.call_id, ${tenant.scope.projectId}, r.run_id, r.envelope_id, ${tenant.apiKeyId}, r.path,
        decode(r.digest, 'hex'), ${ROUTE.name}, ${tenant.catalogVersion}, r.request_id
      from json_to_recordset(${json(rows)}::json) as r(call_id uuid, run_id uuid, envelope_id uuid, path text, digest text,
        request_id uuid)`.execute(db)
    calls.push(...rows.map((row) => preparedCall(tenant, row)))
  }
  return calls
}

interface NewCallRow {
  readonly call_id: string
  readonly run_id: string
  readonly envelope_id: string
  readonly account_id: string
  readonly path: string
  readonly digest: string
  readonly request_id: string
}

let opened = 0

function newCallOf(envelope: BenchEnvelope): NewCallRow {
  opened += 1
  const path = `read/${opened}`
  const digest = sha256(path).toString('hex')
  return {
    call_id: deriveId(envelope.runId, 'call', path, digest),
    run_id: envelope.runId,
    envelope_id: envelope.envelopeId,
    account_id: envelope.accountId,
    path,
    digest,
    request_id: deriveId(envelope.runId, 'request', path, digest),
  }
}

function requestBody(): string {
  return json({ messages: [{ role: 'user', content: PROMPT }], maxTokens: MAX_OUTPUT_TOKENS })
}

function preparedCall(tenant: Tenant, row: NewCallRow): PreparedCall {
  const key = { runId: row.run_id, callId: row.call_id, number: 1 }
  const { price } = tenant
  const usage = { input: 300, cachedInput: 0, output: 50 + Math.floor(Math.random() * 300) }
  const hold = {
    holdId: ledgerId(key, 'hold'),
    callId: row.call_id,
    attempt: 1,
    runId: row.run_id,
    envelopeId: row.envelope_id,
    amount: worstCaseOf(price.prices, { inputTokens: INPUT_TOKEN_BOUND, maxOutputTokens: MAX_OUTPUT_TOKENS }),
    tokens: BigInt(INPUT_TOKEN_BOUND + MAX_OUTPUT_TOKENS),
    owner: newId(Date.now()),
    plan: storedPlan(planOf(tenant)),
  }
  const settlement = {
    holdId: hold.holdId,
    callId: hold.callId,
    attempt: hold.attempt,
    resolutionId: ledgerId(key, 'resolution'),
    overageId: ledgerId(key, 'overage'),
    debtId: ledgerId(key, 'debt'),
    amount: chargeOf(price.prices, { ...NO_USAGE, ...usage }),
    tokens: BigInt(usage.input + usage.output),
    certainty: 'billed' as const,
    outcome: 'answered' as const,
    detail: { providerRequestId: `chatcmpl-${row.call_id}` },
    usage,
    answerId: ledgerId(key, 'answer'),
    answer: { text: ANSWER, finishReason: 'stop' },
  }
  return { pocket: { projectId: tenant.scope.projectId, accountId: row.account_id }, hold, settlement }
}

function planOf({ price }: Tenant): Plan {
  return {
    route: ROUTE.name,
    provider: ROUTE.provider,
    upstreamModel: ROUTE.upstreamModel,
    balanceClass: ROUTE.balanceClass,
    currency: ROUTE.currency,
    priceId: price.id,
    prices: price.prices,
    inputTokenBound: INPUT_TOKEN_BOUND,
    maxOutputTokens: MAX_OUTPUT_TOKENS,
    timeoutMs: ROUTE.timeoutMs,
    why: 'first',
    after: null,
    skipped: [],
  }
}
