#include "train/training_words.h"

#include <algorithm>
#include <string_view>

namespace fathom::train {
namespace {

// Words in alphabetical order. None is in src/eval/words.
constexpr std::string_view kNouns =
    "abacus acolyte adobe aileron alcove alembic almanac alpaca amaranth amulet anemone antler anvil "
    "apiary aqueduct armadillo artichoke astrolabe atoll aubergine awning axle badminton balalaika "
    "ballast bandanna banjo barnacle barometer basalt bassinet bayonet beaker bellows beret bison blazer "
    "bobbin bobsled bolster bonfire bongo bonsai borax bouillon bratwurst brazier briquette brooch bugle "
    "bungalow buoy caboose cairn calico caliper canister capstan caramel caravel cardigan carousel "
    "casserole catapult caviar cello centipede chalet chandelier chisel chutney cicada citadel clarinet "
    "cobalt cockatoo colander compost condor corduroy cormorant corsage cougar coyote cranberry crayon "
    "crocus croissant crossbow crouton crowbar cymbal cypress dahlia decanter dinghy doily dolphin domino "
    "doormat dragonfly dulcimer dumpling easel eggplant elk emery espresso eyelet faucet ferret "
    "fettuccine fez fjord flagon flannel flotilla fondue footstool freesia fresco frigate fritter fuchsia "
    "galleon gargoyle gazebo gazelle geode gherkin gimlet giraffe girder gnome gondola gorilla gourd "
    "granola grommet guava gyroscope haddock halibut halyard hammock hamster harpoon harpsichord hatchet "
    "hazelnut hibiscus hourglass humidor hyacinth ibex icicle iguana inkwell jackal jaguar javelin jigsaw "
    "juniper kayak kazoo kestrel kettledrum kimono kiosk koala lacquer ladle lagoon lantana lasagna lathe "
    "lectern lemur lentil lichen limpet llama lobster locket locust lozenge lychee macaroon macaw "
    "magnolia mandolin mango maraca marigold marimba marlin marmot matchbox meerkat menhir metronome "
    "millet mongoose monocle moose muffin mulberry mussel mustang nacho nectarine newt nougat nutmeg oboe "
    "ocelot octopus okra orchid ostrich ottoman oyster pagoda palette pancake panda pannier papaya "
    "paprika parka parsnip pelican periscope pewter piccolo pickaxe pinecone pistachio platypus plinth "
    "pogo poncho porcupine portcullis pretzel puffin pulley pumice quartz quiche radish ravioli rhubarb "
    "rickshaw rosemary rudder saffron salamander samovar sandal sardine sarong satchel saxophone scarab "
    "schooner scooter sextant shallot sherbet sickle skewer skillet sloth snorkel sombrero spatula "
    "spinach squid stapler stork strudel sundial swivel tadpole tambourine tangerine tarpaulin termite "
    "terrarium thermos thimble tiara toboggan toffee toucan trampoline trellis tricycle trombone trowel "
    "truffle tugboat tunic turbine turnip turnstile turquoise ukulele unicycle urn vineyard waffle walrus "
    "wheelbarrow whisk wigwam wombat xylophone yak yoghurt yucca zebra zeppelin zucchini";
constexpr std::string_view kAdjectives =
    "acrid agile alpine aquatic arched balmy bashful beige blotchy bouncy bubbly bumpy burnished chalky "
    "checkered chilly chipped chubby chunky clammy cobbled coiled copious corky cracked creamy crinkled "
    "crunchy cubic dappled dented diagonal dim dotted drab drowsy elastic embroidered enamelled fizzy "
    "flaky fleecy floral fluffy foamy folded freckled frilly frothy fuzzy glazed glossy gnarled grainy "
    "granular gritty grubby hazy herbal hexagonal humid indigo inky itchy jagged jaunty khaki knitted "
    "knotty lacy lanky latticed leafy lilac limber lopsided lukewarm lumpy lustrous magenta maroon mauve "
    "metallic milky minty mottled murky oblong ochre opaque oval padded papery patchy pearly peppery "
    "perky pleated plush polar porous powdery prickly quilted ragged rectangular rippled rosy rubbery "
    "ruffled rugged russet salty scaly scented shaggy silky sleek slick slippery sloped smoky soapy soggy "
    "spiky spiral spongy spotted springy squat starchy steamy sticky stretchy striped stubby supple "
    "syrupy tangled tangy tapered tarnished teal thorny tiled tinted translucent tubular twisted vaulted "
    "waxy wicker wiry wobbly wooded woolly woven wrinkled zesty zigzag";
constexpr std::string_view kNames =
    "Adewale Aiko Alejandro Amadou Amina Anjali Anselm Aoife Arjun Aroha Astrid Aylin Azadeh Balthazar "
    "Bartek Beatriz Benicio Bjorn Blessing Bogdan Bronwyn Caoimhe Carmela Cedric Chidi Ciaran Cosima "
    "Cyprian Dagny Damaris Demetrius Desmond Dieter Dimitri Dragan Eitan Elif Elowen Emeka Enzo Erasmus "
    "Eun Ezra Fatima Femi Fenella Fiorella Fridtjof Gaspard Giulia Goran Gudrun Gwendolyn Hamish Hana "
    "Haruki Hedda Henrike Hiroshi Ifeoma Ignatius Ilse Imani Indira Ingrid Ioana Isolde Itzel Ivo Jamila "
    "Jarek Jasmin Jelena Jomo Juno Kaito Kamala Kasimir Katya Keanu Kenji Kwame Lachlan Laszlo Leilani "
    "Leocadia Liesel Ljiljana Lorcan Lucasta Ludmila Magnus Mahmoud Malia Marcin Marisol Matteo Mehmet "
    "Milena Mirabel Miroslav Nadia Naveen Nikolai Nkechi Noor Obinna Odalys Olga Omar Ondine Oskar Padma "
    "Paloma Pavel Petronella Pilar Priya Quillon Radek Rafaela Ragnar Rania Raoul Ravi Renske Rhiannon "
    "Rocco Rohan Roksana Sabina Sakura Samir Sanjay Santiago Saoirse Seamus Selma Shirin Siobhan Solveig "
    "Soren Stavros Sunniva Svetlana Tadeusz Takumi Tamsin Tariq Tatiana Thandiwe Thorvald Tiago Torsten "
    "Umar Valentina Vasco Vikram Viveka Wanjiru Wendelin Xanthe Ximena Yannick Yara Yevgeny Yolanda "
    "Youssef Yusuf Zainab Zdenka Zoran Zuzana";

/// Returns every second word, beginning with the first. The others are reserved for evaluation.
eval::WordList even_words(std::string_view words) {
  eval::WordList list;
  for (size_t begin = 0, number = 0; begin < words.size(); ++number) {
    const size_t end = std::min(words.find(' ', begin), words.size());
    if (number % 2 == 0) list.push_back(words.substr(begin, end - begin));
    begin = end + 1;
  }
  return list;
}

}  // namespace

const eval::WordList& training_nouns() {
  static const eval::WordList list = even_words(kNouns);
  return list;
}
const eval::WordList& training_adjectives() {
  static const eval::WordList list = even_words(kAdjectives);
  return list;
}
const eval::WordList& training_names() {
  static const eval::WordList list = even_words(kNames);
  return list;
}

}  // namespace fathom::train
