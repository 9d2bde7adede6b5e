import type { ModelSettings, SandboxModel } from './config.ts'
import { type SandboxContext, settingsOf } from './context.ts'
import type { Dialect } from './dialect.ts'
import { type WireError, contextTooLong, invalidRequest, refusals, unknownModel, wrongKey } from './errors.ts'
import { parseFaultRules } from './fault-rules.ts'
import { parseFaultWords, splitModelName } from './fault-words.ts'
import { type CountedRule, type Faults, refusalOf } from './faults.ts'
import { isRecord, parseJson, stringOrNull } from './json.ts'
import { type PromptUsage, countPrompt } from './prompt.ts'
import { type Body, Unusable } from './request-fields.ts'
import type { ModelRequest } from './request.ts'

export interface Admitted {
  readonly request: ModelRequest
  readonly model: SandboxModel
  readonly settings: ModelSettings
  readonly faults: Faults
  readonly prompt: PromptUsage
  /** All that the messages say. */
  readonly text: string
}

export type Admission =
  | { readonly ok: true; readonly admitted: Admitted }
  | { readonly ok: false; readonly error: WireError; readonly model: string | null; readonly faults: Faults }

export interface Arrival {
  readonly dialect: Dialect
  /** Null when it was longer than allowed. */
  readonly body: string | null
  readonly keyName: string | null
  /** The header `x-sandbox-faults`. */
  readonly script: string | null
}

/** Reads a request, and refuses it as an ordinary provider would, or as a fault says. */
export function admit(context: SandboxContext, arrival: Arrival): Admission {
  const { dialect, keyName } = arrival
  if (keyName === null) return refuse(wrongKey, null)
  if (arrival.body === null) {
    return refuse({ ...invalidRequest('The request body is too large.', null), status: 413 }, null)
  }
  const parsed = parseJson(arrival.body)
  if (!parsed.ok || !isRecord(parsed.value)) {
    return refuse(invalidRequest('We could not parse the JSON body of your request.', null), null)
  }
  try {
    const request = dialect.read(parsed.value)
    return admitRequest(context, arrival, { request, keyName })
  } catch (error) {
    if (!(error instanceof Unusable)) throw error
    return refuse(invalidRequest(error.message, error.param), modelOf(parsed.value))
  }
}

function admitRequest(
  context: SandboxContext,
  arrival: Arrival,
  { request, keyName }: { readonly request: ModelRequest; readonly keyName: string },
): Admission {
  const { base, words } = splitModelName(request.model)
  const model = context.models.get(base)
  const isKind = (model?.kind === 'embedding') === (arrival.dialect.name === 'embeddings')
  if (model === undefined || !isKind) return refuse(unknownModel(request.model), request.model)
  const scripted = readScripts(context, { arrival, name: request.model, words })
  if (!scripted.ok) return refuse(scripted.error, request.model)

  const text = request.messages.map((message) => message.text).join('\n')
  const faults = context.faults.take(model.name, text, scripted.rules)
  const refusal = refusalOf(faults)
  if (refusal !== null) return refuse(refusals[refusal], request.model, faults)
  requireCapabilities(request, model)
  const settings = settingsOf(context, model)
  const isCached = settings.cache && arrival.dialect.name === 'chat'
  const counting = { imageTokens: model.imageTokens, cachesAll: isCached, owner: keyName }
  const prompt = countPrompt(request, counting, context.cache)
  const asked = prompt.promptTokens + (request.maxTokens ?? 0)
  if (asked > model.contextTokens) {
    return refuse(contextTooLong({ allowed: model.contextTokens, asked }), request.model, faults)
  }
  return { ok: true, admitted: { request, model, settings, faults, prompt, text } }
}

type Scripts =
  | { readonly ok: true; readonly rules: readonly CountedRule[] }
  | { readonly ok: false; readonly error: WireError }

/** The faults that a request itself asks for: those of its header go before those of its model name. */
function readScripts(
  { faults }: SandboxContext,
  { arrival, name, words }: { readonly arrival: Arrival; readonly name: string; readonly words: readonly string[] },
): Scripts {
  const { script } = arrival
  try {
    const byHeader =
      script === null ? [] : faults.script(JSON.stringify([name, script]), () => parseFaultRules(parseScript(script)))
    const byName = words.length === 0 ? [] : faults.script(name, () => parseFaultWords(words))
    return { ok: true, rules: [...byHeader, ...byName] }
  } catch (error) {
    if (!(error instanceof TypeError)) throw error
    return { ok: false, error: invalidRequest(`Faults: ${error.message}`, null) }
  }
}

function parseScript(script: string): unknown {
  const parsed = parseJson(script)
  if (!parsed.ok) throw new TypeError('the header x-sandbox-faults must be JSON: a fault rule or a list of them')
  return parsed.value
}

function requireCapabilities(request: ModelRequest, model: SandboxModel): void {
  if (!model.tools && request.tools.length > 0) throw new Unusable(`${model.name} does not support tools.`, 'tools')
  if (!model.vision && request.messages.some((message) => message.images > 0)) {
    throw new Unusable(`${model.name} does not support images.`, 'messages')
  }
}

function refuse(error: WireError, model: string | null, faults: Faults = {}): Admission {
  return { ok: false, error, model, faults }
}

function modelOf(body: Body): string | null {
  return stringOrNull(body['model'])
}
