import { formatAmount } from './bill.ts'
import type { SandboxModel } from './config.ts'
import type { SandboxContext } from './context.ts'

/** When the configured models are said to have been created: models never change here. */
const MODELS_CREATED = 1_700_000_000

/** What models there are: OpenAI's list, with what OpenRouter tells beside the names, and prices per 1,000,000 tokens. */
export function describeModels({ models, currency }: SandboxContext): object {
  return { object: 'list', data: [...models.values()].map((model) => describeModel(model, currency)) }
}

function describeModel(model: SandboxModel, currency: string): object {
  const isChat = model.kind === 'chat'
  return {
    id: model.name,
    object: 'model',
    created: MODELS_CREATED,
    owned_by: 'sandbox',
    kind: model.kind,
    context_length: model.contextTokens,
    max_output_tokens: isChat ? model.maxOutputTokens : 0,
    architecture: {
      input_modalities: isChat && model.vision ? ['text', 'image'] : ['text'],
      output_modalities: [isChat ? 'text' : 'embeddings'],
    },
    supported_parameters: isChat
      ? ['max_tokens', 'response_format', 'stop', 'stream', ...(model.tools ? ['tools', 'tool_choice'] : [])]
      : ['dimensions', 'encoding_format'],
    pricing: {
      currency,
      input: formatAmount(model.prices.inputNano),
      output: formatAmount(model.prices.outputNano),
    },
  }
}
