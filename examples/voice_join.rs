//! Voice: songbird joins a channel through shardkeeper. The example ends where songbird would connect to the
//! voice server.

use std::num::NonZeroU64;
use std::sync::Arc;

use serde::Deserialize;
use shardkeeper::{EventName, Intents, Shardkeeper, Topic};
use shardkeeper_examples::Discord;
use songbird::Call;
use songbird::shards::Shard;

#[derive(Deserialize)]
struct Ready {
    user: User,
}

#[derive(Deserialize)]
struct User {
    id: String,
}

#[derive(Deserialize)]
struct Guild {
    id: String,
    name: String,
    channels: Vec<Channel>,
}

#[derive(Deserialize)]
struct Channel {
    id: String,
    name: String,
    #[serde(rename = "type")]
    kind: u8,
}

#[derive(Deserialize)]
struct VoiceState {
    user_id: String,
    channel_id: Option<String>,
    session_id: String,
}

#[derive(Deserialize)]
struct VoiceServer {
    token: String,
    /// `None` while the voice server is not available; another VOICE_SERVER_UPDATE follows (GW-204).
    endpoint: Option<String>,
}

fn id(text: &str) -> Result<NonZeroU64, std::num::ParseIntError> {
    text.parse()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let discord = Discord::find().await?;
    let bot = Shardkeeper::builder(discord.token(), Intents::GUILDS | Intents::GUILD_VOICE_STATES)
        .api_url(discord.api_url());
    let mut guilds = bot.subscribe(Topic::events([EventName::Ready, EventName::GuildCreate]));
    let mut voice = bot.subscribe(Topic::events([EventName::VoiceStateUpdate, EventName::VoiceServerUpdate]));
    let bot = bot.start().await?;

    // The bot's own id, and any voice channel.
    let (mut bot_id, mut found) = (None, None);
    while bot_id.is_none() || found.is_none() {
        let Some(event) = guilds.next().await else { return Ok(()) };
        let Some(dispatch) = event.dispatch() else { continue };
        if dispatch.event_name() == Some(EventName::Ready) {
            bot_id = Some(dispatch.parse::<Ready>()?.user.id);
        } else if let Ok(guild) = dispatch.parse::<Guild>()
            && let Some(channel) = guild.channels.into_iter().find(|channel| channel.kind == 2)
        {
            found = Some((guild.id, guild.name, channel));
        }
    }
    drop(guilds);
    let (Some(bot_id), Some((guild_id, guild, channel))) = (bot_id, found) else { return Ok(()) };

    let mut call = Call::new(id(&guild_id)?, Shard::Generic(Arc::new(bot.clone())), id(&bot_id)?);
    let mut joining = Box::pin(call.join_gateway(id(&channel.id)?).await?);
    let connection = loop {
        tokio::select! {
            connection = &mut joining => break connection?,
            Some(event) = voice.next() => {
                let Some(dispatch) = event.dispatch() else { continue };
                if dispatch.event_name() == Some(EventName::VoiceServerUpdate) {
                    let VoiceServer { token, endpoint } = dispatch.parse()?;
                    if let Some(endpoint) = endpoint {
                        call.update_server(endpoint, token);
                    }
                } else {
                    let state: VoiceState = dispatch.parse()?;
                    if state.user_id == bot_id {
                        let channel_id = state.channel_id.as_deref().map(id).transpose()?;
                        call.update_state(state.session_id, channel_id);
                    }
                }
            }
        }
    };
    println!(
        "joined {} of {guild}: songbird's driver would now connect to {}",
        channel.name, connection.endpoint
    );
    call.leave().await?;
    println!("left");
    bot.stop().await;
    Ok(())
}
